package acceptance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// answerTime is how long a server may take to answer one byte, or to refuse.
const answerTime = 2 * time.Second

// dial connects from a namespace.
func dial(ns *netns.Namespace, network, address string) (c net.Conn, err error) {
	if strings.HasPrefix(address, "[::]:") {
		// Else package net tries IPv4 as well, on threads that are elsewhere.
		network += "6"
	}
	err = ns.Do(func() (err error) {
		c, err = net.DialTimeout(network, address, answerTime)
		return err
	})
	return c, err
}

// connect makes a TCP connection from the host that the test closes when it ends.
func (b *bed) connect(address string) *net.TCPConn {
	b.t.Helper()
	return b.dial("tcp", address).(*net.TCPConn)
}

// dial makes a connection from the host; the port must be open.
func (b *bed) dial(network, address string) net.Conn {
	b.t.Helper()
	c, err := dial(b.host, network, address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c
}

// try asks an echo server for its answer.
func try(ns *netns.Namespace, network, address string) error {
	c, err := dial(ns, network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	return hello(c)
}

// hello asks an echo server once.
func hello(c net.Conn) error {
	if c.LocalAddr().Network() == "udp" {
		return (&asker{Conn: c}).ask([]byte("hello\n"))
	}
	return exchange(c, []byte("hello\n"))
}

// exchange sends a message through an echo server, by TCP.
func exchange(c net.Conn, message []byte) error {
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if _, err := c.Write(message); err != nil {
		return err
	}
	answer := make([]byte, len(message))
	n, err := io.ReadFull(c, answer)
	if err != nil {
		return fmt.Errorf("%d of %d bytes: %w", n, len(message), err)
	}
	if !bytes.Equal(answer, message) {
		return fmt.Errorf("sent %.20q, got %.20q", message, answer)
	}
	return nil
}

// asker is a UDP client that asks again when no answer comes, as clients do:
// whoever is busy may drop datagrams, the kernel first of all.
type asker struct {
	net.Conn
	asked [][]byte // late answers to these may still come
}

// ask sends a message through an echo server. No two may be the same.
func (a *asker) ask(message []byte) error {
	const attempts = 8
	answer := make([]byte, 1<<16)
	for range attempts {
		if _, err := a.Write(message); err != nil {
			return err
		}
		if err := a.SetReadDeadline(time.Now().Add(answerTime / attempts)); err != nil {
			return err
		}
		for {
			n, err := a.Read(answer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if bytes.Equal(answer[:n], message) {
				a.asked = append(a.asked, message)
				return nil
			}
			if !slices.ContainsFunc(a.asked, func(old []byte) bool { return bytes.Equal(answer[:n], old) }) {
				return fmt.Errorf("asked %.20q, got %d bytes: %.20q", message, n, answer[:n])
			}
		}
	}
	return fmt.Errorf("no answer to %.20q: %w", message, os.ErrDeadlineExceeded)
}

// reach waits until an echo server answers on the host's address.
func (b *bed) reach(network, address string) {
	b.t.Helper()
	wait.Eventually(b.t, patience, network+" "+address+" answers", func() error {
		return try(b.host, network, address)
	})
}

// unreachable waits until the host's address is closed, as it is where nobody
// ever listened.
func (b *bed) unreachable(network, address string) {
	b.t.Helper()
	wait.Eventually(b.t, patience, network+" "+address+" is closed", func() error {
		return closed(b.host, network, address)
	})
}

// closed returns an error unless an address refuses.
func closed(ns *netns.Namespace, network, address string) error {
	err := try(ns, network, address)
	if !refused(err) {
		return fmt.Errorf("it gave %v", err)
	}
	return nil
}

// must fails the test at an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
