package vm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/echo"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
	"github.com/vmbridge/vmbridge/tests/wait"
)

const netcat = "nc.openbsd"

// D, E and F1: netcat both ways, TCP and UDP, IPv4 and IPv6: what is typed appears
// at the other end.
func testNetcat(t *testing.T, s *system) {
	port := 7000
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range loopbacks {
			listens, connects := []string{netcat, "-nlv"}, []string{netcat}
			if network == "udp" {
				listens, connects = []string{netcat, "-nluv"}, []string{netcat, "-u"}
			}
			port++
			name := fmt.Sprintf("%s %s", network, address)
			t.Run(name+" to the machine", func(t *testing.T) {
				s := s.in(t)
				server := s.inGuest(append(listens, address, fmt.Sprint(port))...)
				s.open(network, port)
				talk.Chat(s.onHost(append(connects, address, fmt.Sprint(port))...), server, name)
			})
			port++
			t.Run(name+" to the host", func(t *testing.T) {
				s := s.in(t)
				server := s.onHost(append(listens, address, fmt.Sprint(port))...)
				server.Shows(" on " + address)
				talk.Chat(s.inGuest(append(connects, "localhost", fmt.Sprint(port))...), server, name)
			})
		}
	}
}

// F2: closed on both sides is refused, and nc -z tells the truth. The row's 100 ms
// are for a real machine: in an emulated one on a busy host connect may take a
// second.
func testRefused(t *testing.T, s *system) {
	const limit = time.Second
	for _, address := range loopbacks {
		for _, network := range []string{"tcp", "udp"} {
			var most time.Duration
			for range 10 {
				started := time.Now()
				err := s.refusedInGuest(network, at(address, 7000))
				most = max(most, time.Since(started))
				if !refused(err) {
					t.Errorf("%s %s: %v", network, address, err)
				}
			}
			t.Logf("%s %s: refused within %v, with the way to the machine", network, address, most)
			if most > limit {
				t.Errorf("%s %s: refused within %v, want %v", network, address, most, limit)
			}
		}
		if _, err := s.try(netcat, "-zv", address, "7000"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("nc -z of a closed port: %v", err)
		}
		l := s.listen(at(address, 7000))
		if _, err := s.try(netcat, "-zv", address, "7000"); err != nil {
			t.Errorf("nc -z of an open port: %v", err)
		}
		l.Close()
	}
	// And from the host, where nobody in the machine listens.
	if err := s.hello("tcp", at("127.0.0.1", 7000)); !refused(err) {
		t.Errorf("on the host: %v", err)
	}
}

// refusedInGuest gives the error of a socket in the machine, which may not take
// its time.
func (s *system) refusedInGuest(network, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	c, err := s.guest.Connect(ctx, network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	must(s.t, c.SetDeadline(time.Now().Add(answerTime)))
	if network == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// D1: half-close either way, in both directions, with a late reply of 0, 1, 64 Ki
// and 10 Mi bytes.
func testHalfClose(t *testing.T, s *system) {
	for way, pair := range s.pairs(7000) {
		for _, size := range []int{0, 1, 64 << 10, 10 << 20} {
			client, server := pair()
			if err := traffic.HalfClose(client, server, size); err != nil {
				t.Errorf("%s, client first, reply of %d: %v", way, size, err)
			}
			client, server = pair()
			if err := traffic.HalfClose(server, client, size); err != nil {
				t.Errorf("%s, server first, reply of %d: %v", way, size, err)
			}
		}
	}
}

// D3: RST travels as RST, and FIN as FIN, from either end in both directions.
func testReset(t *testing.T, s *system) {
	for way, pair := range s.pairs(7000) {
		for _, c := range []struct {
			name string
			end  func(stream) error
			want error
		}{
			{"reset", stream.Reset, syscall.ECONNRESET},
			{"fin", stream.CloseWrite, io.EOF},
		} {
			for i, from := range []string{"client", "server"} {
				var ends [2]stream
				ends[0], ends[1] = pair()
				ender, other := ends[i], ends[1-i]
				// A byte first, so that both ends are known to be there.
				_, err := ender.Write([]byte("x"))
				must(t, err)
				var one [1]byte
				_, err = io.ReadFull(other, one[:])
				must(t, err)
				must(t, c.end(ender))
				if _, err := other.Read(one[:]); !errors.Is(err, c.want) {
					t.Errorf("%s: %s from the %s arrives as %v, want %v", way, c.name, from, err, c.want)
				}
			}
		}
	}
}

// D8: 100 MB each way, both at once, with equal checksums; to the machine, and
// from it.
func testBulk(t *testing.T, s *system) {
	const size = 100e6
	s.serve(7000)
	started := time.Now()
	c := s.connect("127.0.0.1:7000")
	must(t, c.SetDeadline(started.Add(patience)))
	must(t, traffic.Exchange(tcp{c}, size))
	t.Logf("to the machine: %.0f MB/s", 2*size/1e6/time.Since(started).Seconds())

	go echo.TCP(s.listen("127.0.0.1:7001"))
	started = time.Now()
	out := s.run("guest", "bulk", "127.0.0.1:7001", fmt.Sprint(int(size)))
	if out != "equal" {
		t.Errorf("the machine says %q", out)
	}
	t.Logf("from the machine: %.0f MB/s", 2*size/1e6/time.Since(started).Seconds())
}

// 1,000 flows at once, to the machine and from it, each with bytes of its own.
func testManyFlows(t *testing.T, s *system) {
	const flows = 1000
	s.serve(7000)
	started := time.Now()
	conns := make([]net.Conn, flows)
	must(t, wait.Together(20, func(lane int) error {
		for i := lane; i < flows; i += 20 {
			c, err := s.dial("tcp", at(loopbacks[i%2], 7000))
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			t.Cleanup(func() { c.Close() })
			conns[i] = c
			if err := echoed(c, i); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
		return nil
	}))
	// All of them are open now, and all still work.
	must(t, wait.Together(flows, func(i int) error { return echoed(conns[i], i+1) }))
	t.Logf("to the machine: %v", time.Since(started).Round(time.Millisecond))

	go echo.TCP(s.listen("127.0.0.1:7001"))
	started = time.Now()
	if out := s.run("guest", "flows", "127.0.0.1:7001", fmt.Sprint(flows)); out != "equal" {
		t.Errorf("the machine says %q", out)
	}
	t.Logf("from the machine: %v", time.Since(started).Round(time.Millisecond))
}

// echoed sends and gets back bytes that depend on i.
func echoed(c net.Conn, i int) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return traffic.Echo(c, 1000+i)
}

// C4, G1: turned off, everything is released at once, flows in both directions
// too, and the machine has its localhost for itself; turned on, all is back.
func testToggle(t *testing.T, s *system) {
	s.serve(7000)
	go echo.TCP(s.listen("127.0.0.1:7001"))
	to := s.connect("127.0.0.1:7000")
	must(t, exchange(to, []byte("before\n")))
	from, err := s.guest.Connect(t.Context(), "tcp", "127.0.0.1:7001")
	must(t, err)
	defer from.Close()
	must(t, exchange(from, []byte("before\n")))

	s.vmbridge("disable")
	s.released(time.Now(), 7000)
	for name, c := range map[string]net.Conn{"to the machine": to, "from the machine": from} {
		must(t, c.SetReadDeadline(time.Now().Add(answerTime)))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && err != io.EOF {
			t.Errorf("a flow %s gives %v", name, err)
		}
	}
	// From the first connect on: the host refuses until the agent has let go.
	for range 10 {
		if err := s.refusedInGuest("tcp", "127.0.0.1:7001"); !refused(err) {
			t.Errorf("the machine's localhost gives %v", err)
		}
	}
	wait.Eventually(t, patience, "host reach is off", func() error {
		l, err := s.link()
		if err == nil && l.HostReach.State != control.Off {
			err = errors.New(l.HostReach.State)
		}
		return err
	})
	if err := s.refusedInGuest("tcp", "127.0.0.1:7001"); !refused(err) {
		t.Errorf("the machine's localhost gives %v", err)
	}

	s.vmbridge("enable")
	s.serves(7000)
	s.reaches("127.0.0.1:7001")
}

// reaches waits until the machine reaches an echo server of the host.
func (s *system) reaches(address string) {
	s.t.Helper()
	wait.Eventually(s.t, patience, "the machine reaches "+address, func() error { return s.reach(address) })
}

// reach asks an echo server of the host from the machine.
func (s *system) reach(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	c, err := s.guest.Connect(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c, []byte("hello\n"))
}
