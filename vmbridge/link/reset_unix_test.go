//go:build unix

package link_test

import "syscall"

// What a reset makes of reading and of writing.
const (
	connReset  = syscall.ECONNRESET
	brokenPipe = syscall.EPIPE
)
