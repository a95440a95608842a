// Package socket makes servers' sockets of every kind, in this process or, by a
// Maker, in another one, which hands them over.
//
// A Maker is for sockets that shall look like those of a program in another
// network namespace: it is that program.
package socket
