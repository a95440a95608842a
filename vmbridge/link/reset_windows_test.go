package link_test

import "golang.org/x/sys/windows"

// What a reset makes of reading and of writing.
const (
	connReset  = windows.WSAECONNRESET
	brokenPipe = windows.WSAECONNABORTED
)
