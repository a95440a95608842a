package link

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// CodeOf gives the code that stands for an error of a socket or a dial.
func CodeOf(err error) wire.Code {
	if code := systemCode(err); code != 0 {
		return code
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return wire.CodeRefused
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return wire.CodeTimedOut
	case errors.Is(err, syscall.EHOSTUNREACH):
		return wire.CodeHostUnreachable
	case errors.Is(err, syscall.ENETUNREACH):
		return wire.CodeNetUnreachable
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return wire.CodeConnectionReset
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
		return wire.CodeResources
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return wire.CodeAddressNotUsable
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return wire.CodeDenied
	}
	return wire.CodeOther
}

// isNotConnected tells that a socket's peer was gone before we shut it down.
func isNotConnected(err error) bool { return errors.Is(err, errNotConnected) }
