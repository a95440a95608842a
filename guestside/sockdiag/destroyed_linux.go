package sockdiag

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Multicast groups of NETLINK_SOCK_DIAG (include/uapi/linux/sock_diag.h).
const (
	groupTCPDestroy  = 1
	groupUDPDestroy  = 2
	groupTCP6Destroy = 3
	groupUDP6Destroy = 4

	attrProtocol = 10 // INET_DIAG_PROTOCOL, u8
)

// Gone is a socket that the kernel destroyed.
type Gone struct {
	Protocol Protocol
	Port     uint16
}

// Destroyed receives the kernel's notifications about sockets that were
// destroyed. Notifications may be lost: they only wake.
type Destroyed struct {
	conn *netlink.Conn
}

// OpenDestroyed subscribes for the network namespace of the calling thread. It
// needs CAP_NET_ADMIN.
func OpenDestroyed() (*Destroyed, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	d := &Destroyed{conn: conn}
	if err := d.subscribe(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribe to destroyed sockets: %w", err)
	}
	return d, nil
}

func (d *Destroyed) subscribe() error {
	// The kernel tells of every connection that ends. The filter lets pass what
	// has a local port and no peer: inet_diag_msg follows the netlink header,
	// ports are at 4 and 6 of it.
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: unix.NLMSG_HDRLEN + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 2},
		bpf.LoadAbsolute{Off: unix.NLMSG_HDRLEN + 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: math.MaxUint32},
	})
	if err != nil {
		return err
	}
	if err := d.conn.SetBPF(filter); err != nil {
		return err
	}
	for _, group := range []uint32{groupTCPDestroy, groupUDPDestroy, groupTCP6Destroy, groupUDP6Destroy} {
		if err := d.conn.JoinGroup(group); err != nil {
			return err
		}
	}
	return nil
}

// Next waits for notifications and appends them to buf. When some were lost,
// the error is unix.ENOBUFS and the next call goes on.
func (d *Destroyed) Next(buf []Gone) ([]Gone, error) {
	messages, err := d.conn.Receive()
	if err != nil {
		return buf, fmt.Errorf("receive destroyed sockets: %w", err)
	}
	for _, m := range messages {
		if g, ok := decodeGone(m.Data); ok {
			buf = append(buf, g)
		}
	}
	return buf, nil
}

// decodeGone reads the protocol, which only notifications carry, besides the
// port.
func decodeGone(b []byte) (Gone, bool) {
	s, err := Decode(b)
	if err != nil {
		return Gone{}, false
	}
	attrs, err := netlink.NewAttributeDecoder(b[sizeofInetDiagMsg:])
	if err != nil {
		return Gone{}, false
	}
	attrs.ByteOrder = binary.NativeEndian
	for attrs.Next() {
		if attrs.Type() == attrProtocol {
			g := Gone{Protocol: Protocol(attrs.Uint8()), Port: s.Local.Port()}
			return g, attrs.Err() == nil
		}
	}
	return Gone{}, false
}

// Close ends the subscription and makes Next return.
func (d *Destroyed) Close() error { return d.conn.Close() }
