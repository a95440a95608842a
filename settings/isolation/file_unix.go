//go:build !windows

package isolation

import "syscall"

// openFlags: do not wait for a FIFO's writer, and get no controlling terminal.
const openFlags = syscall.O_NONBLOCK | syscall.O_NOCTTY
