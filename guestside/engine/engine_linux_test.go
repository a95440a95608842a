package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/unixserver"
	"github.com/vmbridge/vmbridge/tests/wait"
)

const patience = 30 * time.Second

func TestFlags(t *testing.T) {
	got := parseFlags(strings.Fields(
		"dockerd -H fd:// --host=unix:///run/a.sock -H unix:///run/b.sock --data-root /srv/docker --data-root=relative -H"))
	want := Daemon{Sockets: []string{"/run/a.sock", "/run/b.sock"}, Roots: []string{"/srv/docker"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if d, ok := ReadDaemon(1 << 30); ok {
		t.Errorf("a process that does not exist has flags: %+v", d)
	}
}

// head reads a request and begins an answer that ends with the connection.
func head(conn net.Conn, rest string) {
	_, _ = conn.Read(make([]byte, 4096))
	fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"+rest)
}

// endless writes until the other side has had enough, and tells how much that was.
func endless(conn net.Conn, text string) int {
	chunk := []byte(strings.Repeat(text, 4096))
	for total := 0; ; {
		n, err := conn.Write(chunk)
		total += n
		if err != nil {
			return total
		}
	}
}

func hang(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// TestHostile holds H2: an engine that hangs, or answers with garbage or without
// end, costs a bounded time and a bounded memory.
func TestHostile(t *testing.T) {
	for name, answer := range map[string]func(net.Conn){
		"hang":           hang,
		"hang in header": func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\n"); hang(c) },
		"hang in body":   func(c net.Conn) { head(c, `[{"a":`); hang(c) },
		"garbage":        func(c net.Conn) { fmt.Fprint(c, "\x00\xff\x1b[2J\r\n") },
		"no JSON":        func(c net.Conn) { head(c, "<html>") },
		"nothing":        func(net.Conn) {},
		"endless header": func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\n"); endless(c, "X-Header: value\r\n") },
		"endless line":   func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX: "); endless(c, "x") },
		"endless string": func(c net.Conn) { head(c, `["`); endless(c, "x") },
		"endless nest":   func(c net.Conn) { head(c, ``); endless(c, "[") },
		"endless space":  func(c net.Conn) { head(c, ``); endless(c, " ") },
		"redirection":    func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 302 Found\r\nLocation: http://engine/other\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			socket := unixserver.Start(t, answer)
			for call, ask := range map[string]func() error{
				"Get": func() error { return Get(t.Context(), socket, "/info", new([]map[string]any)) },
				"Each": func() error {
					_, err := Each(t.Context(), socket, "/list", 10, func(map[string]any) {})
					return err
				},
			} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				began := time.Now()
				err := ask()
				took := time.Since(began)
				runtime.ReadMemStats(&after)
				if err == nil || errors.Is(err, ErrNone) || took > Timeout+patience {
					t.Errorf("%s: %v after %s", call, err, took)
				}
				if grown := after.TotalAlloc - before.TotalAlloc; grown > 16*maxAnswer {
					t.Errorf("%s: %d bytes were allocated", call, grown)
				}
			}
		})
	}
}

func TestNone(t *testing.T) {
	stale := filepath.Join(t.TempDir(), "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{stale, file, stale + "/none", filepath.Join(t.TempDir(), "none")} {
		if err := Get(t.Context(), socket, "/info", new(any)); !errors.Is(err, ErrNone) && !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", socket, err)
		}
		if Activated(t.Context(), socket) {
			t.Errorf("%s is a service manager's", socket)
		}
	}
}

func TestAsk(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/three", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[1,2,3]`) })
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[]`) })
	mux.HandleFunc("/object", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Name":"x"}`) })
	// A list may be longer than one answer may be.
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `[%s0]`, strings.Repeat(strings.Repeat(" ", 1000)+"0,", maxAnswer/900))
	})
	socket := unixserver.StartHTTP(t, mux)
	for _, tc := range []struct {
		path string
		most int
		want int
		more bool
	}{{"/three", 3, 3, false}, {"/three", 2, 2, true}, {"/empty", 1, 0, false}, {"/long", 1 << 20, maxAnswer/900 + 1, false}} {
		var n int
		var more bool
		var err error
		wait.Until(t, patience, "the answer to "+tc.path, func() bool { // a busy machine may need a try more
			n = 0
			more, err = Each(t.Context(), socket, tc.path, tc.most, func(int) { n++ })
			return err == nil
		})
		if n != tc.want || more != tc.more {
			t.Errorf("%s: %d elements, more: %t", tc.path, n, more)
		}
	}
	if _, err := Each(t.Context(), socket, "/object", 1, func(int) {}); err == nil {
		t.Error("an object is a list")
	}
	var object struct{ Name string }
	if err := Get(t.Context(), socket, "/object", &object); err != nil || object.Name != "x" {
		t.Errorf("%+v, %v", object, err)
	}
	if err := Get(t.Context(), socket, "/other", &object); !errors.Is(err, ErrNotFound) {
		t.Errorf("what the engine does not have: %v", err)
	}
	if Activated(t.Context(), socket) != (os.Getpid() == 1) {
		t.Error("this process made the socket")
	}
}

// TestFollow holds that events are told as they come, and that one which cannot
// be read is told as such.
func TestFollow(t *testing.T) {
	next := make(chan string)
	asked := make(chan string, 1)
	socket := unixserver.StartHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path + " " + r.FormValue("since") + " " + r.FormValue("filters")
		for text := range next {
			fmt.Fprint(w, text)
			w.(http.Flusher).Flush()
		}
	}))
	events := make(chan Event)
	ended := make(chan error, 1)
	go func() {
		ended <- Follow(t.Context(), socket, time.Unix(1234, 5678), map[string][]string{"type": {"daemon"}}, func(e Event) { events <- e })
	}()
	if got, want := wait.For(t, patience, "the question", asked), `/events 1234 {"type":["daemon"]}`; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	for _, tc := range []struct {
		text string
		want Event
	}{
		{`{"Type":"daemon","Action":"reload","Actor":{"ID":"x"}}`, Event{"daemon", "reload"}},
		{`{"status":"start","Type":"container","Action":"start"}`, Event{"container", "start"}},
		{`{"Type":"container","label":"` + strings.Repeat("x", 3*maxEvent) + `"}`, Event{}},
		{`{"Type":"container","Action":"die"}`, Event{"container", "die"}},
		{`garbage`, Event{}},
		{`{"Type":7}`, Event{}},
	} {
		next <- tc.text + "\n"
		if got := wait.For(t, patience, "an event", events); got != tc.want {
			t.Errorf("%.60s: got %+v, want %+v", tc.text, got, tc.want)
		}
	}
	close(next)
	if err := wait.For(t, patience, "the end", ended); !errors.Is(err, ErrEnded) {
		t.Errorf("ended with %v", err)
	}
}

// TestFollowFlood holds H2: an engine that sends events without end is read at a
// bounded rate.
func TestFollowFlood(t *testing.T) {
	for name, line := range map[string]string{"events": "{}\n", "one event": "x"} {
		t.Run(name, func(t *testing.T) {
			total := make(chan int, 1)
			socket := unixserver.Start(t, func(c net.Conn) {
				head(c, "")
				total <- endless(c, line)
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := Follow(ctx, socket, time.Now(), nil, func(Event) {}); !errors.Is(err, ErrEnded) {
				t.Errorf("ended with %v", err)
			}
			// A second is ten pauses, and what the socket's buffers hold.
			if n := wait.For(t, patience, "the engine's end", total); n > 16*eventBytes {
				t.Errorf("%d bytes were read in a second", n)
			}
		})
	}
}
