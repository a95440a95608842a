package link

import "errors"

// Windows has no non-blocking calls on a socket's handle: its sockets complete
// through overlapped calls of the runtime, and a direct call would race with
// those. transport.RawWrite gives no access there, so these are never called.

func tryWrite(uintptr, []byte) (int, error)      { return 0, errors.ErrUnsupported }
func tryRead(uintptr, []byte) (int, bool, error) { return 0, false, errors.ErrUnsupported }
func pendingError(uintptr) error                 { return errors.ErrUnsupported }
