//go:build !(linux || darwin) || !(amd64 || arm64)

package vhostvsock

import "os"

// New refuses to work here, so nothing of this is ever called.
const (
	supported   = false
	rightsBytes = 0
)

func parseRights([]byte, int) ([]int, error) { return nil, ErrUnsupported }

func closeDescriptor(int) {}

func mapShared(int, uint64, uint64) ([]byte, func() error, error) {
	return nil, nil, ErrUnsupported
}

func newKick(int) (*os.File, error) { return nil, ErrUnsupported }

func readKick(*os.File, []byte) error { return ErrUnsupported }

type notifier struct{}

func newNotifier(int) (*notifier, error) { return nil, ErrUnsupported }

func (*notifier) notify() {}

func (*notifier) close() {}
