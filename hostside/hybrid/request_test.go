//go:build unix

package hybrid_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/hybrid"
	"github.com/vmbridge/vmbridge/tests/wait"
)

func TestRequests(t *testing.T) {
	status := func(c *hybrid.Config) { c.Status = func() any { return map[string]int{"cid": 3} } }
	b := newBed(t, status, nil)
	const unknown = "ERR unknown request; write CONNECT PORT\n"
	for request, reply := range map[string]string{
		"CONNECT 99\n":                     "ERR nobody listens on port 99\n",
		"CONNECT 4294967294\n":             "ERR nobody listens on port 4294967294\n",
		"CONNECT 4294967295\n":             unknown,
		"CONNECT 99999999999999999999\n":   unknown,
		"CONNECT -1\n":                     unknown,
		"CONNECT\n":                        unknown,
		"CONNECT  1\n":                     unknown,
		"CONNECT 1 2\n":                    unknown,
		"CONNECT 0x1\n":                    unknown,
		"connect 99\n":                     unknown,
		"\n":                               unknown,
		"\x00\xff\n":                       unknown,
		"GET / HTTP/1.1\r\n\r\n":           unknown,
		strings.Repeat("CONNECT ", 10_000): unknown,
		"STATUS\n":                         `{"cid":3}` + "\n",
		"STATUS \n":                        unknown,
	} {
		if got := b.ask(t, request); got != reply {
			t.Errorf("%.30q is answered by %q, want %q", request, got, reply)
		}
	}
	if got := newBed(t, nil, nil).ask(t, "STATUS\n"); got != unknown {
		t.Errorf("without a status: %q", got)
	}
	b.dial(t).Close() // just looked
	b.idle(t)
}

// A client that says nothing, or not all, is not waited for.
func TestRequestTimeout(t *testing.T) {
	b := newBed(t, nil, func(s *hybrid.Server) { s.SetTimes(50*time.Millisecond, time.Minute) })
	if got := b.ask(t, "CONNECT 73"); got != "ERR unknown request; write CONNECT PORT\n" {
		t.Errorf("half a request: %q", got)
	}
	if got := b.ask(t, ""); got != "" {
		t.Errorf("no request: %q", got)
	}
	b.idle(t)
	// The time is for the request alone.
	client, guest := b.pair(t)
	client.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
	if _, err := client.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a stream ended: %v", err)
	}
	client.Write([]byte("x"))
	if _, err := guest.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// What the guest, or whoever dials, says of a failure is made safe to print.
func TestReason(t *testing.T) {
	b := newBed(t, func(c *hybrid.Config) {
		c.Dial = func(context.Context, uint32) (hybrid.Stream, error) {
			return nil, errors.New("no\nOK 1\x1b[2J" + strings.Repeat("x", 1000))
		}
	}, nil)
	got := b.ask(t, "CONNECT 1\n")
	if len(got) > 250 || !strings.HasPrefix(got, "ERR no\ufffdOK 1\ufffd[2Jxxx") || strings.Count(got, "\n") != 1 {
		t.Errorf("%q", got)
	}
}

// A request may come in pieces, and with the first data behind it.
func TestPipelined(t *testing.T) {
	b := newBed(t, nil, nil)
	client := b.dial(t)
	for _, piece := range []string{"CON", "NECT 73", "2", "\nearly", "\n"} {
		if _, err := io.WriteString(client, piece); err != nil {
			t.Fatal(err)
		}
	}
	guest, err := b.guest.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	if line, err := bufio.NewReader(guest).ReadString('\n'); line != "early\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestMaxConns(t *testing.T) {
	b := newBed(t, func(c *hybrid.Config) { c.MaxConns = 2 }, nil)
	first, _ := b.pair(t)
	b.pair(t)
	if got := b.ask(t, "CONNECT 732\n"); got != "ERR too many connections\n" {
		t.Errorf("the third: %q", got)
	}
	first.Close()
	wait.Until(t, patience, "room", func() bool { now, _ := b.server.Conns(); return now == 1 })
	b.pair(t)
	if now, ever := b.server.Conns(); now != 2 || ever != 4 {
		t.Errorf("%d connections, %d ever", now, ever)
	}
}

// A guest that does not answer is given up before the client gives us up.
func TestDialTimeout(t *testing.T) {
	limits := make(chan time.Duration, 1)
	b := newBed(t, func(c *hybrid.Config) {
		c.Dial = func(ctx context.Context, _ uint32) (hybrid.Stream, error) {
			end, _ := ctx.Deadline()
			limits <- time.Until(end)
			return nil, errors.New("late")
		}
	}, nil)
	b.ask(t, "CONNECT 1\n")
	if limit := <-limits; limit <= 0 || limit > 4*time.Second {
		t.Errorf("the guest has %s", limit)
	}
}

func FuzzConnect(f *testing.F) {
	for _, s := range []string{"CONNECT 1", "CONNECT ", "CONNECT 4294967295", "STATUS", "", "CONNECT 01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		port, err := hybrid.ParseConnect(line)
		if err != nil {
			return
		}
		if again, err := hybrid.ParseConnect(fmt.Sprintf("CONNECT %d", port)); err != nil || again != port {
			t.Errorf("%q is port %d, and again %d, %v", line, port, again, err)
		}
	})
}
