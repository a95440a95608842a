package vm_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/vm"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// The ways into the machine that are compared.
const (
	wayQEMU     = "slirp"    // QEMU's own network, with hostfwd
	wayVsock    = "vsock"    // the device alone, through PATH.hybrid
	wayVMBridge = "vmbridge" // a forward: daemon, device, agent
)

var ways = []string{wayQEMU, wayVsock, wayVMBridge}

// benchTime is how long one way is measured at a time.
const benchTime = time.Second

// BenchmarkMachine measures the ways to the servers of one machine that is
// emulated: the figures mean little, their ratios something. Each round of a
// measure goes through all ways, beginning with another one each time, and the
// medians are reported.
func BenchmarkMachine(b *testing.B) {
	m := startBench(b)
	for _, measure := range []struct {
		name, unit string
		run        func(dialer) (float64, error)
	}{
		{"ToGuest", "MB/s", bytesToGuest},
		{"FromGuest", "MB/s", bytesFromGuest},
		{"RoundTrip", "us", roundTrip},
		{"Connect", "conn/s", connectRate},
	} {
		b.Run(measure.name, func(b *testing.B) {
			samples := make(map[string][]float64)
			for round := 0; b.Loop(); round++ {
				for i := range ways {
					way := ways[(i+round)%len(ways)]
					sample, err := measure.run(m.dialer(way))
					if err != nil {
						b.Fatalf("%s: %v", way, err)
					}
					samples[way] = append(samples[way], sample)
				}
			}
			b.ReportMetric(0, "ns/op") // of a round, which says nothing
			peer := median(samples[wayQEMU])
			for _, way := range ways {
				ours := median(samples[way])
				b.ReportMetric(ours, way+"-"+measure.unit)
				if way != wayQEMU {
					b.ReportMetric(ours/peer, way+"/"+wayQEMU)
				}
			}
		})
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// benched is a machine that is reached in all ways.
type benched struct {
	*system
	forwarded map[uint32]int // the host's ports of QEMU's network, by the machine's
}

// startBench boots a machine that has nothing but its servers, the agent, and two
// devices. QEMU, the daemon and the clients share a network namespace.
func startBench(b *testing.B) *benched {
	kernel := vm.FindKernel(b)
	m := &benched{system: &system{t: b, whole: b, host: newNamespace(b), running: new(running)}, forwarded: make(map[uint32]int)}
	b.Logf("congestion control on the host: %s", m.avoidBBR())
	m.programs, m.dir = b.TempDir(), shortDir(b)
	m.home, m.socket = filepath.Join(m.dir, "home"), filepath.Join(m.dir, "vsock")
	build(b, m.programs, "./cmd/vmbridge", "./cmd/vmbridge-guest", "./tests/vm/guest")
	b.Cleanup(m.endDevice)
	m.startDaemon()
	key := filepath.Join(m.dir, "key")
	must(b, os.WriteFile(key, []byte(m.vmbridge("guest", "key", linkName)), 0o600))
	_, err := linkkey.Load(key)
	must(b, err)

	netdev := "user,id=n0"
	for i, port := range []uint32{portEcho, portOrders} {
		m.forwarded[port] = 2000 + i // everything is free in the namespace
		netdev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", m.forwarded[port], port)
	}
	image := vm.Image{
		Kernel:  kernel,
		Modules: []string{"virtio_pci", "vmw_vsock_virtio_transport", "virtio_net", "tcp_diag", "udp_diag"},
		Files: map[string]string{
			"/bin/guest": filepath.Join(m.programs, "guest"), "/bin/vmbridge-guest": filepath.Join(m.programs, "vmbridge-guest"),
			"/key": key,
		},
		Script: "chmod 600 /key; ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2\n" +
			"vmbridge-guest serve --key /key --host-reach off & guest tcp",
	}
	m.config = vm.Config{
		Kernel: kernel, Initramfs: image.Write(b), Namespace: m.host,
		Args: append(vm.VsockArgs(m.socket), "-netdev", netdev, "-device", "virtio-net-pci,netdev=n0"),
	}
	m.machine = vm.Start(b, m.config)
	m.machine.WaitFor("GUEST-READY", 1)
	m.awaitLink()
	m.open("tcp", portEcho)
	m.open("tcp", portOrders)
	return m
}

// avoidBBR has the host's end use what most machines use: BBR, which some have for
// all namespaces, halves the throughput of the loopback.
func (s *system) avoidBBR() string {
	const control = "reno" // that every kernel allows
	must(s.t, s.host.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte(control), 0)
	}))
	return control
}

// dialer connects to a port of the machine.
type dialer func(port uint32) (net.Conn, error)

func (m *benched) dialer(way string) dialer {
	return func(port uint32) (c net.Conn, err error) {
		switch way {
		case wayVsock:
			c, err = m.dialPort(context.Background(), port)
		case wayQEMU:
			c, err = m.dial("tcp", at("127.0.0.1", m.forwarded[port]))
		default:
			c, err = m.dial("tcp", at("127.0.0.1", int(port)))
		}
		if err != nil {
			return nil, err
		}
		return c, c.SetDeadline(time.Now().Add(limit))
	}
}

const block = 128 << 10

// bytesToGuest is MB/s that a server in the machine has taken.
func bytesToGuest(dial dialer) (float64, error) {
	c, err := dial(portOrders)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, "discard"); err != nil {
		return 0, err
	}
	sent, data, started := 0, make([]byte, block), time.Now()
	for time.Since(started) < benchTime {
		n, err := c.Write(data)
		if sent += n; err != nil {
			return 0, err
		}
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return 0, err
	}
	// What waits in buffers is not there yet.
	if _, err := io.ReadAll(c); err != nil {
		return 0, err
	}
	return float64(sent) / 1e6 / time.Since(started).Seconds(), nil
}

// bytesFromGuest is MB/s that a server in the machine has given.
func bytesFromGuest(dial dialer) (float64, error) {
	c, err := dial(portOrders)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, "zeros"); err != nil {
		return 0, err
	}
	got, data, started := 0, make([]byte, block), time.Now()
	for time.Since(started) < benchTime {
		n, err := c.Read(data)
		if got += n; err != nil {
			return 0, err
		}
	}
	return float64(got) / 1e6 / time.Since(started).Seconds(), nil
}

// roundTrip is the median time of a byte to an echo server and back, in
// microseconds.
func roundTrip(dial dialer) (float64, error) {
	c, err := dial(portEcho)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var took []float64
	for started := time.Now(); time.Since(started) < benchTime; {
		asked := time.Now()
		if err := echoByte(c); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(asked))/float64(time.Microsecond))
	}
	return median(took), nil
}

// connectRate is connections a second of one client. Each carries a byte to and
// fro, because QEMU's network accepts before the machine has.
func connectRate(dial dialer) (float64, error) {
	count, started := 0, time.Now()
	for time.Since(started) < benchTime {
		c, err := dial(portEcho)
		if err != nil {
			return 0, err
		}
		if err := cmp.Or(echoByte(c), c.Close()); err != nil {
			return 0, err
		}
		count++
	}
	return float64(count) / time.Since(started).Seconds(), nil
}

func echoByte(c net.Conn) error {
	b := []byte{1}
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}
