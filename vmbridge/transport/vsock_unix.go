//go:build unix

package transport

import "golang.org/x/sys/unix"

// errNoVSock is what a kernel without AF_VSOCK answers.
const errNoVSock = unix.EAFNOSUPPORT
