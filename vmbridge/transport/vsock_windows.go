package transport

import "golang.org/x/sys/windows"

// errNoVSock is what a system without AF_VSOCK answers.
const errNoVSock = windows.WSAEAFNOSUPPORT
