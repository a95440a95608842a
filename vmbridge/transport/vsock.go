package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"

	"github.com/mdlayher/vsock"
)

const (
	anyCID        = 1<<32 - 1 // VMADDR_CID_ANY
	anyPort       = 1<<32 - 1 // VMADDR_PORT_ANY
	hypervisorCID = vsock.Hypervisor
	hostCID       = vsock.Host
	firstGuestCID = hostCID + 1
)

func dialVSock(ctx context.Context, cid, port uint32) (net.Conn, error) {
	c, err := vsock.DialContext(ctx, cid, port, nil)
	if err != nil {
		return nil, vsockError(err)
	}
	return c, nil
}

// listenVSock listens on every context ID of this machine unless cid names one.
// Unlike vsock.Listen it does not have to open /dev/vsock to learn its own,
// which changes when a VM is restored elsewhere.
func listenVSock(cid, port uint32, opts ListenOptions) (net.Listener, error) {
	l, err := vsock.ListenContextID(cid, port, nil)
	if err != nil {
		return nil, vsockError(err)
	}
	allowed := opts.ContextIDs
	if len(allowed) == 0 {
		allowed = []uint32{hostCID}
	}
	return &vsockListener{Listener: l, any: opts.AnyContextID, allowed: allowed, refused: opts.Refused}, nil
}

func vsockError(err error) error {
	switch {
	case runtime.GOOS != "linux":
		return fmt.Errorf("%w: AF_VSOCK does not exist on %s", ErrUnsupported, runtime.GOOS)
	case errors.Is(err, errNoVSock):
		return fmt.Errorf("%w: this kernel has no AF_VSOCK (modprobe vsock)", ErrUnsupported)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (vsock ports below 1024 need root)", err)
	}
	return err
}

// vsockListener accepts from some context IDs only: a program in a VM nested
// in this one, or a container by way of the loopback, could connect as well.
type vsockListener struct {
	*vsock.Listener
	any     bool
	allowed []uint32
	refused func(net.Addr)
}

// Accept waits for a peer that is allowed, and turns the others away.
func (l *vsockListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, ok := c.RemoteAddr().(*vsock.Addr)
		if l.any || (ok && slices.Contains(l.allowed, peer.ContextID)) {
			return c, nil
		}
		_ = c.Close()
		if l.refused != nil {
			l.refused(c.RemoteAddr())
		}
	}
}
