package transport_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/hybriddouble"
	"github.com/vmbridge/vmbridge/tests/unixserver"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// hybridPair is a hybrid socket, and the unix socket that stands for the guest.
func hybridPair(t testing.TB) (c1, c2 net.Conn) {
	t.Helper()
	path := socketPath(t)
	l, err := mustParse("unix://"+path).Listen(testContext(t), transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	double := hybriddouble.Start(t, map[uint32]string{732: path})
	if c1, c2, err = pair(testContext(t), l, mustParse("hybrid://"+double+"?port=732")); err != nil {
		t.Fatal(err)
	}
	return c1, c2
}

// TestHybrid connects to a port of a double of Firecracker.
func TestHybrid(t *testing.T) {
	c1, c2 := hybridPair(t)
	defer c1.Close()
	defer c2.Close()
	if _, ok := c1.(*net.UnixConn); !ok {
		t.Errorf("the connection is a %T", c1)
	}
	for _, p := range [][2]net.Conn{{c1, c2}, {c2, c1}} {
		fmt.Fprintln(p[0], "hello")
		if line, err := bufio.NewReader(p[1]).ReadString('\n'); line != "hello\n" {
			t.Errorf("%q, %v", line, err)
		}
	}
}

// TestHybridRefused: Firecracker says nothing when nobody listens in the guest.
func TestHybridRefused(t *testing.T) {
	e := mustParse("hybrid://" + hybriddouble.Start(t, nil) + "?port=99")
	_, err := e.Dial(testContext(t), transport.DialOptions{})
	if err == nil || !strings.Contains(err.Error(), "nobody listens on port 99 of the guest") {
		t.Errorf("%v", err)
	}
	if strings.Count(err.Error(), e.Path()) != 1 {
		t.Errorf("the socket is not named once: %v", err)
	}
}

// TestHybridReplies: whatever comes is a stream or an error that says what it was.
func TestHybridReplies(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answer  func(net.Conn)
		after   string // what the stream begins with
		problem string // or part of the error
	}{
		{"at once", say("OK 1073741824\n"), "", ""},
		{"without a port", say("OK\n"), "", ""},
		{"with data", say("OK 5\nearly\n"), "early\n", ""},
		{"with two lines", say("OK 5\nOK 6\n"), "OK 6\n", ""},
		{"in pieces", say("O", "K", " 10737", "41824", "\n", "lat", "e"), "late", ""},
		{"nothing", say(), "", "nobody listens on port 732"},
		{"an end", say("OK 1073"), "", `closed in the middle of the reply to CONNECT 732: "OK 1073"`},
		{"a reason", say("ERR the guest has no driver\n"), "", "the guest has no driver"},
		{"a hostile reason", say("ERR \x1b[2Jno\x00\xff\n"), "", "\ufffd[2Jno\ufffd\ufffd"},
		{"no word", say("OKAY 1\n"), "", `"OKAY 1" is no reply`},
		{"an empty line", say("\n"), "", `"" is no reply`},
		{"HTTP", say("HTTP/1.1 400 Bad Request\r\n"), "", `"HTTP/1.1 400 Bad Request` + "\ufffd" + `" is no reply`},
		{"bytes", say("\x00\x01\x02\n"), "", "is no reply"},
		{"an endless line", func(c net.Conn) {
			for err := error(nil); err == nil; {
				_, err = c.Write([]byte(strings.Repeat("OK ", 1000)))
			}
		}, "", "more than 256 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			requests := make(chan string, 1)
			path := unixserver.Start(t, func(c net.Conn) {
				line, _ := bufio.NewReader(c).ReadString('\n')
				requests <- line
				tc.answer(c)
			})
			c, err := mustParse("hybrid://"+path+"?port=732").Dial(testContext(t), transport.DialOptions{})
			if line := <-requests; line != "CONNECT 732\n" {
				t.Errorf("the request is %q", line)
			}
			if tc.problem != "" {
				if err == nil {
					t.Fatal("connected")
				}
				if !strings.Contains(err.Error(), tc.problem) || strings.ContainsAny(err.Error(), "\n\r\x1b\x00") {
					t.Errorf("%q, want %q", err, tc.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, err := io.ReadAll(c); string(got) != tc.after || err != nil {
				t.Errorf("the stream begins with %q, %v, want %q", got, err, tc.after)
			}
		})
	}
}

// TestHybridTooFast: a server that refuses before it is asked is heard as well.
func TestHybridTooFast(t *testing.T) {
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "ERR too many connections\n")
			c.Close()
		}
	}()
	for range 100 {
		_, err := mustParse("hybrid://"+path+"?port=732").Dial(testContext(t), transport.DialOptions{})
		if err == nil || !strings.Contains(err.Error(), "too many connections") {
			t.Fatalf("%v", err)
		}
	}
}

// say writes pieces, each by itself.
func say(pieces ...string) func(net.Conn) {
	return func(c net.Conn) {
		for _, p := range pieces {
			if _, err := io.WriteString(c, p); err != nil {
				return
			}
		}
	}
}

// TestHybridWaits: the context ends the wait for a reply, and only that.
func TestHybridWaits(t *testing.T) {
	asked := make(chan struct{}, 1)
	path := unixserver.Start(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		line, _ := r.ReadString('\n')
		if line == "CONNECT 1\n" {
			io.WriteString(c, "OK 1\n")
			c.Write([]byte{<-echoed(r)})
			return
		}
		io.WriteString(c, "OK") // and no more
		asked <- struct{}{}
		r.ReadByte() // until the other end closes
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, err := mustParse("hybrid://"+path+"?port=2").Dial(ctx, transport.DialOptions{})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no reply to CONNECT 2") {
		t.Errorf("after the context's end: %v", err)
	}

	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = mustParse("hybrid://"+path+"?port=2").Dial(ctx, transport.DialOptions{})
	<-asked
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	c, err := mustParse("hybrid://"+path+"?port=1").Dial(ctx, transport.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	c.Write([]byte{7})
	if got, err := io.ReadAll(c); string(got) != "\x07" || err != nil {
		t.Errorf("%q, %v after the context's end", got, err)
	}
}

// echoed gives the next byte.
func echoed(r *bufio.Reader) <-chan byte {
	c := make(chan byte, 1)
	b, _ := r.ReadByte()
	c <- b
	return c
}
