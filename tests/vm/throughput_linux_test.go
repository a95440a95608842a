package vm_test

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/vm"
)

// BenchmarkVsock measures the device beside the network that QEMU has in itself
// (slirp, with hostfwd), in one machine. Emulation makes the figures themselves
// meaningless; their ratio says something.
func BenchmarkVsock(b *testing.B) {
	ports := map[uint32]int{portEcho: freePort(b), portOrders: freePort(b)}
	netdev := "user,id=n0"
	for guest, host := range ports {
		netdev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", host, guest)
	}
	bed := newBedWith(b, vm.Image{
		Modules: []string{"virtio_pci", "vmw_vsock_virtio_transport", "virtio_net"},
		Script:  "ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2; guest tcp",
	}, "-netdev", netdev, "-device", "virtio-net-pci,netdev=n0")
	for _, way := range []struct {
		name string
		dial func(port uint32) (net.Conn, error)
	}{
		{"vsock", func(port uint32) (net.Conn, error) { return bed.device.Dial(b.Context(), port) }},
		{"slirp", func(port uint32) (net.Conn, error) {
			return net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[port])))
		}},
	} {
		dial := func(b *testing.B, port uint32) net.Conn {
			c, err := way.dial(port)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(limit))
			return c
		}
		b.Run(way.name+"/to", func(b *testing.B) { benchmarkTo(b, dial(b, portOrders)) })
		b.Run(way.name+"/from", func(b *testing.B) { benchmarkFrom(b, dial(b, portOrders)) })
		b.Run(way.name+"/roundtrip", func(b *testing.B) { benchmarkRoundTrip(b, dial(b, portEcho)) })
		b.Run(way.name+"/connect", func(b *testing.B) {
			for b.Loop() {
				c, err := way.dial(portEcho)
				if err != nil {
					b.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(limit))
				// slirp accepts before the guest has: only an answer tells.
				answer(b, c)
				c.Close()
			}
		})
	}
}

func freePort(b *testing.B) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

const block = 128 << 10

func benchmarkTo(b *testing.B, c net.Conn) {
	fmt.Fprintln(c, "discard")
	data := make([]byte, block)
	b.SetBytes(block)
	for b.Loop() {
		if _, err := c.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	c.(interface{ CloseWrite() error }).CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		b.Fatal(err)
	}
}

func benchmarkFrom(b *testing.B, c net.Conn) {
	fmt.Fprintln(c, "zeros")
	data := make([]byte, block)
	b.SetBytes(block)
	for b.Loop() {
		if _, err := io.ReadFull(c, data); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkRoundTrip(b *testing.B, c net.Conn) {
	for b.Loop() {
		answer(b, c)
	}
}

func answer(b *testing.B, c net.Conn) {
	if _, err := c.Write([]byte{1}); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
}
