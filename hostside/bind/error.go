package bind

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Kinds of refusal.
var (
	ErrInUse       = errors.New("address already in use")
	ErrPermission  = errors.New("no permission")
	ErrNoAddress   = errors.New("no such address on this host")
	ErrDescriptors = errors.New("too many open files")
)

// Error says which bind failed, of what kind, and where possible what would
// help.
type Error struct {
	Protocol string
	At       netip.AddrPort
	Kind     error  // one of the kinds, or nil
	Hint     string // for people; may be empty
	Err      error  // of the system
}

func (e *Error) Error() string {
	s := fmt.Sprintf("bind %s %s: ", e.Protocol, e.At)
	if e.Hint != "" {
		return s + e.Hint
	}
	return s + e.Cause().Error()
}

// Cause is the system's own error, without the operations around it.
func (e *Error) Cause() error {
	if errno, ok := errors.AsType[syscall.Errno](e.Err); ok {
		return errno
	}
	return e.Err
}

// Unwrap gives the kind and the system's error to package errors.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Kind, e.Err}
}

func newError(protocol string, at netip.AddrPort, err error) *Error {
	e := &Error{Protocol: protocol, At: at, Kind: kindOf(err), Err: err}
	switch e.Kind {
	case ErrPermission:
		e.Hint = permissionHint(protocol, at)
	case ErrDescriptors:
		e.Hint = "too many open files"
		if n := Descriptors(); n > 0 {
			e.Hint = fmt.Sprintf("too many open files: the limit is %d (ulimit -n)", n)
		}
	}
	return e
}

// kindOf never looks at texts: those depend on system and language.
func kindOf(err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return nil
	}
	return kindOfErrno(errno)
}
