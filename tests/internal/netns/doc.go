// Package netns gives tests network namespaces of their own, in which all ports
// are free and no other test is in the way.
//
// A namespace has no name in the file system, so that nothing is left when the
// test program dies: it lives as long as a thread, a socket or a process in it,
// or a descriptor of it.
package netns
