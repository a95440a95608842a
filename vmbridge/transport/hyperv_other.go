//go:build !windows

package transport

import (
	"context"
	"fmt"
	"net"
	"runtime"
)

func dialHyperV(context.Context, string, uint32) (net.Conn, error) {
	return nil, fmt.Errorf("%w: Hyper-V sockets need Windows, and this is %s", ErrUnsupported, runtime.GOOS)
}
