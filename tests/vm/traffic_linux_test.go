package vm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// stream is a TCP connection: this process's, or one of a socket in the machine.
type stream interface {
	net.Conn
	CloseWrite() error
	Reset() error
}

// tcp is a connection of the host.
type tcp struct{ *net.TCPConn }

func (c tcp) Reset() error { return errors.Join(c.SetLinger(0), c.Close()) }

// dial connects on the host.
func (s *system) dial(network, address string) (c net.Conn, err error) {
	err = s.host.Do(func() (err error) {
		c, err = net.DialTimeout(network, address, patience)
		return err
	})
	if err != nil {
		return nil, err
	}
	must(s.t, c.SetDeadline(time.Now().Add(patience)))
	return c, nil
}

// connect makes a TCP connection on the host that the test closes.
func (s *system) connect(address string) *net.TCPConn {
	s.t.Helper()
	c, err := s.dial("tcp", address)
	must(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// listen listens on the host.
func (s *system) listen(address string) *net.TCPListener {
	s.t.Helper()
	var l net.Listener
	must(s.t, s.host.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}))
	s.t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// ports finds the listing of a port.
func (s *system) ports(network string, port int) (found []control.Port, err error) {
	ports, err := control.NewClient(s.home).Ports(context.Background())
	for _, p := range ports {
		if p.Protocol == network && int(p.Guest.Port) == port {
			found = append(found, p)
		}
	}
	return found, err
}

// open waits until a port of the machine is open on the host.
func (s *system) open(network string, port int) (found control.Port) {
	s.t.Helper()
	wait.Eventually(s.t, patience, fmt.Sprintf("%s %d is open", network, port), func() error {
		list, err := s.ports(network, port)
		if err != nil {
			return err
		}
		if len(list) != 1 || list[0].State != control.PortOpen {
			return fmt.Errorf("listed are %+v", list)
		}
		found = list[0]
		return nil
	})
	return found
}

// gone waits until a port is not listed.
func (s *system) gone(network string, port int) {
	s.t.Helper()
	wait.Eventually(s.t, patience, fmt.Sprintf("%s %d is gone", network, port), func() error {
		list, err := s.ports(network, port)
		if err == nil && len(list) > 0 {
			err = fmt.Errorf("listed are %+v", list)
		}
		return err
	})
}

// loopbacks are the host's loopback addresses.
var loopbacks = []string{"127.0.0.1", "::1"}

func at(address string, port int) string { return net.JoinHostPort(address, strconv.Itoa(port)) }

// serve starts an echo server in the machine, TCP and UDP, both families.
func (s *system) serve(port int) *talker {
	s.t.Helper()
	p := strconv.Itoa(port)
	k := s.inGuest("server", "tcp", "::", p, p, "udp", "::", p, p)
	wait.Eventually(s.t, patience, fmt.Sprintf("port %d answers", port), func() error {
		select {
		case <-k.done:
			s.t.Fatalf("the server has ended: %v", k.err)
		default:
		}
		return s.answers(port)
	})
	return k
}

// serves waits until a port answers, TCP and UDP, both families.
func (s *system) serves(port int) {
	s.t.Helper()
	wait.Eventually(s.t, patience, fmt.Sprintf("port %d answers", port), func() error { return s.answers(port) })
}

func (s *system) answers(port int) error {
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range loopbacks {
			if err := s.hello(network, at(address, port)); err != nil {
				return fmt.Errorf("%s %s: %w", network, address, err)
			}
		}
	}
	return nil
}

// answerTime is how long a server may take to answer one byte.
const answerTime = 5 * time.Second

// hello asks an echo server once, from the host.
func (s *system) hello(network, address string) error {
	c, err := s.dial(network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c, []byte("hello\n"))
}

// exchange sends a message through an echo server; datagrams once more each
// second.
func exchange(c net.Conn, message []byte) error {
	attempts, each := 1, answerTime
	if c.LocalAddr().Network() == "udp" {
		attempts, each = 5, answerTime/5
	}
	answer := make([]byte, len(message))
	var err error
	for range attempts {
		if _, err := c.Write(message); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(each)); err != nil {
			return err
		}
		if _, err = io.ReadFull(c, answer); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	if err == nil && !bytes.Equal(answer, message) {
		err = fmt.Errorf("sent %.20q, got %.20q", message, answer)
	}
	return err
}

// released checks that the host's ports can be bound again within 2 s, TCP and
// UDP, both families, by programs that know nothing of SO_REUSEADDR.
func (s *system) released(since time.Time, port int) {
	s.t.Helper()
	const limit = 2 * time.Second
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range []string{"0.0.0.0", "::"} {
			err := wait.Try(max(0, limit-time.Since(since)), func() error { return s.bind(network, at(address, port)) })
			if err != nil {
				s.t.Errorf("%s %s is not free %v later: %v", network, at(address, port), time.Since(since), err)
			}
		}
	}
	s.t.Logf("port %d was free within %v", port, time.Since(since).Round(time.Millisecond))
}

// bind binds a port of the host, and lets go of it.
func (s *system) bind(network, address string) error {
	return s.host.Do(func() error {
		f, err := socket.Spec{Network: network, Address: address, OnlyV6: true}.Open()
		if err != nil {
			return err
		}
		return f.Close()
	})
}

// pairs make connections from the host to the machine, and from the machine to the
// host, and give both ends. The machine's servers listen at port, the host's at the next.
func (s *system) pairs(port int) map[string]func() (client, server stream) {
	return map[string]func() (client, server stream){
		"to the machine": func() (client, server stream) {
			l, err := s.guest.Listen(context.Background(), at("127.0.0.1", port))
			must(s.t, err)
			// The listener of the time before may still be forwarded, and refuse.
			wait.Eventually(s.t, patience, "the machine's port answers", func() error {
				c, err := s.dial("tcp", at("127.0.0.1", port))
				if err == nil {
					client = tcp{c.(*net.TCPConn)}
				}
				return err
			})
			server, err = l.Accept()
			must(s.t, err)
			s.closeLater(client, server)
			return client, server
		},
		"to the host": func() (client, server stream) {
			l := s.listen(at("127.0.0.1", port+1))
			defer l.Close()
			must(s.t, l.SetDeadline(time.Now().Add(patience)))
			client, err := s.guest.Connect(context.Background(), "tcp", at("127.0.0.1", port+1))
			must(s.t, err)
			c, err := l.AcceptTCP()
			must(s.t, err)
			s.closeLater(client, c)
			return client, tcp{c}
		},
	}
}

// closeLater bounds connections by the test's patience, and its end.
func (s *system) closeLater(conns ...net.Conn) {
	for _, c := range conns {
		must(s.t, c.SetDeadline(time.Now().Add(patience)))
		s.t.Cleanup(func() { c.Close() })
	}
}

// awaitOpen waits until so many ports are listed as open, beside those that the
// rules ignore.
func (s *system) awaitOpen(open int) {
	s.t.Helper()
	wait.Eventually(s.t, patience, fmt.Sprintf("%d ports open", open), func() error {
		status, err := s.status()
		if err == nil && (status.Counts.Open != open || status.Counts.Ports-status.Counts.Ignored != open) {
			err = fmt.Errorf("%+v", status.Counts)
		}
		return err
	})
}

// hostSockets lists the sockets of the host that wait for peers.
func (s *system) hostSockets() (open []string) {
	s.t.Helper()
	for _, network := range []string{"tcp", "tcp6", "udp", "udp6"} {
		var text []byte
		must(s.t, s.host.Do(func() (err error) {
			text, err = os.ReadFile("/proc/thread-self/net/" + network)
			return err
		}))
		for line := range strings.Lines(string(text)) {
			// "  12: 0100007F:1B59 00000000:0000 0A ...": listening TCP (0A) and
			// unconnected UDP (07) sockets.
			if f := strings.Fields(line); slices.Contains([]string{"0A", "07"}, f[3]) {
				open = append(open, network+" "+f[1])
			}
		}
	}
	return open
}
