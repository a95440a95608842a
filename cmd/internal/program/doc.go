// Package program is what the two programs do alike: run a command tree, turn
// its error into one line and an exit status, make a logger, stop on signals
// and tell the version.
package program
