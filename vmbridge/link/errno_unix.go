//go:build unix

package link

import (
	"syscall"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

const errNotConnected = syscall.ENOTCONN

// systemCode gives the code of an error that only this system has, or 0.
func systemCode(error) wire.Code { return 0 }
