//go:build !linux

package link

import (
	"errors"
	"net"
)

const (
	canSplice   = false
	spliceBytes = 0
)

// pipe does not exist here: payload is copied.
type pipe struct{ n int }

type pipePool struct{}

func (*pipePool) get() *pipe { return nil }
func (*pipePool) put(*pipe)  {}
func (*pipePool) close()     {}

func (*pipe) fill(uintptr, int) (int, bool, error) { return 0, false, errors.ErrUnsupported }
func (*pipe) drain(uintptr) error                  { return errors.ErrUnsupported }

func splices(net.Conn) bool { return false }
