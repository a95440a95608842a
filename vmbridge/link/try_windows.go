package link

import "errors"

// canTry is false on Windows: its sockets complete through overlapped calls of
// the runtime, and a direct call on their handle would race with those.
const canTry = false

func tryWrite(uintptr, []byte) (int, error)      { return 0, errors.ErrUnsupported }
func tryRead(uintptr, []byte) (int, bool, error) { return 0, false, errors.ErrUnsupported }
func pendingError(uintptr) error                 { return errors.ErrUnsupported }
