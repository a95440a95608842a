// Package isolate runs a test in a child process with a network namespace of its
// own, where all ports are free and no other test is in the way. A test can have
// its own mount namespace too.
package isolate
