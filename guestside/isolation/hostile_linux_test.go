package isolation

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/guestside/engine"
	"github.com/vmbridge/vmbridge/tests/unixserver"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// double is an engine that answers as a test wants.
type double struct {
	socket string
	mu     sync.Mutex
	info   string
	list   string
	events []chan struct{} // of the streams: closed to end one
	asked  map[string]int
}

func newDouble(t *testing.T, info string) *double {
	t.Helper()
	d := &double{socket: filepath.Join(t.TempDir(), "sock"), info: info, list: "[]", asked: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/info", func(w http.ResponseWriter, r *http.Request) { d.answer(w, r, &d.info) })
	mux.HandleFunc("/containers/json", func(w http.ResponseWriter, r *http.Request) { d.answer(w, r, &d.list) })
	mux.HandleFunc("/containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		runtime := "runc"
		if strings.HasPrefix(r.PathValue("id"), "e") {
			runtime = "eci"
		}
		fmt.Fprintf(w, `{"HostConfig":{"Runtime":%q},"State":{"Running":true}}`, runtime)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		stream := make(chan struct{})
		d.mu.Lock()
		d.events = append(d.events, stream)
		d.mu.Unlock()
		w.(http.Flusher).Flush()
		for {
			select {
			case stream <- struct{}{}: // an event is wanted
				fmt.Fprintln(w, `{"Type":"daemon","Action":"reload"}`)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(l) })
	t.Cleanup(func() {
		server.Close()
		serving.Wait()
	})
	return d
}

func (d *double) answer(w http.ResponseWriter, r *http.Request, text *string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[r.URL.Path]++
	fmt.Fprint(w, *text)
}

func (d *double) times(path string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[path]
}

// reload changes what the engine says of itself, and has it tell so.
func (d *double) reload(t *testing.T, info string) {
	t.Helper()
	var stream chan struct{}
	wait.Until(t, patience, "a stream of events", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.info = info
		if len(d.events) > 0 {
			stream = d.events[len(d.events)-1]
		}
		return stream != nil
	})
	wait.For(t, patience, "the stream", stream)
}

const (
	eci   = `{"DefaultRuntime":"eci","Runtimes":{"runc":{"path":"runc"},"eci":{"path":"/usr/bin/sysbox-runc"}}}`
	noECI = `{"DefaultRuntime":"runc","Runtimes":{"runc":{"path":"runc"},"eci":{"path":"/usr/bin/sysbox-runc"}}}`
)

// TestRuntimeByAnotherName holds G2: a runtime is known by its path; an engine is
// asked after its events, and not in between.
func TestRuntimeByAnotherName(t *testing.T) {
	d := newDouble(t, noECI)
	id := "e" + strings.Repeat("0", 63)
	d.list = `[{"Id":"` + id + `","Names":["/web"]},{"Id":"a1","Names":[]},{"Id":"../info","Names":["/evil"]}]`
	w := run(t, Config{EngineSockets: []string{d.socket}})
	wait.For(t, patience, "the first answers", w.Ready())
	inContainer := finding(message.IsolationContainerRuntime, "container web, runtime eci (/usr/bin/sysbox-runc), engine at "+d.socket)
	byDefault := finding(message.IsolationDefaultRuntime, "eci (/usr/bin/sysbox-runc), engine at "+d.socket)
	w.within(t, patience, "a container's runtime", inContainer)
	if byDefault(w.now()) {
		t.Errorf("the default runtime is evidence: %+v", w.now())
	}
	d.reload(t, eci)
	w.within(t, noticed, "the default runtime", byDefault)
	d.reload(t, noECI)
	w.within(t, noticed, "another default runtime", not(byDefault))
	if info, list := d.times("/info"), d.times("/containers/json"); info != 3 || list != 1 {
		t.Errorf("/info was asked %d times, /containers/json %d times", info, list)
	}
}

// TestHostileEngines holds G2 and H2: engines that do not answer are told of,
// and delay neither the first report nor what others say.
func TestHostileEngines(t *testing.T) {
	hostile := map[string]func(net.Conn){
		"hang":    func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"garbage": func(c net.Conn) { fmt.Fprint(c, "\x00\x1b[2J garbage\r\n") },
		"endless": func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n\"")
			for err := error(nil); err == nil; {
				_, err = c.Write(make([]byte, 4096))
			}
		},
		"empty": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n{}")
		},
	}
	sockets := map[string]string{}
	var all []string
	for name, answer := range hostile {
		sockets[name] = unixserver.Start(t, answer)
		all = append(all, sockets[name])
	}
	honest := newDouble(t, eci)
	began := time.Now()
	w := run(t, Config{EngineSockets: append(all, honest.socket)})
	wait.For(t, patience, "ready", w.Ready())
	if took := time.Since(began); took > firstAnswers+noticed {
		t.Errorf("ready after %s", took)
	}
	if !missing(sockets["hang"])(w.now()) {
		t.Errorf("an engine that has not answered is not told of: %+v", w.now())
	}
	w.within(t, noticed, "the honest one", finding(message.IsolationDefaultRuntime, "eci (/usr/bin/sysbox-runc), engine at "+honest.socket))
	for name, socket := range sockets {
		w.within(t, engine.Timeout+noticed, name, func(i message.Isolation) bool {
			return missing(socket)(i) && !slices.Contains(i.Incomplete, "engine at "+socket+": "+errNotYet.Error())
		})
	}
	for _, s := range w.now().Incomplete {
		if len(s) > maxText || strings.ContainsAny(s, "\x00\x1b") {
			t.Errorf("%q", s)
		}
		t.Log(s)
	}
}

// missing looks for an engine that could not be asked.
func missing(socket string) func(message.Isolation) bool {
	return func(i message.Isolation) bool {
		return slices.ContainsFunc(i.Incomplete, func(s string) bool { return strings.HasPrefix(s, "engine at "+socket+": ") })
	}
}

// TestSilence holds G2: what an engine said holds while it does not answer, and
// is void when nobody listens any more.
func TestSilence(t *testing.T) {
	var mu sync.Mutex
	var conns []net.Conn
	hangs := false
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	defer l.Close()
	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			quiet := hangs
			mu.Unlock()
			if quiet {
				continue
			}
			request := make([]byte, 4096)
			n, _ := c.Read(request)
			switch {
			case strings.HasPrefix(string(request[:n]), "GET /info "):
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n\r\n%s", eci)
				c.Close()
			case strings.HasPrefix(string(request[:n]), "GET /containers/json "):
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n[]")
				c.Close()
			case n > 0:
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
			}
		}
	})
	hangUp := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
		conns = nil
	}
	defer hangUp()
	w := run(t, Config{EngineSockets: []string{socket}})
	byDefault := finding(message.IsolationDefaultRuntime, "eci (/usr/bin/sysbox-runc), engine at "+socket)
	w.within(t, patience, "the default runtime", func(i message.Isolation) bool { return byDefault(i) && !missing(socket)(i) })
	mu.Lock()
	hangs = true
	mu.Unlock()
	wait.Until(t, patience, "the stream's end", func() bool {
		hangUp() // until the engine is asked anew, and says nothing
		return missing(socket)(w.now())
	})
	if !byDefault(w.now()) {
		t.Errorf("an engine that says nothing has taken back what it said: %+v", w.now())
	}
	l.Close()
	hangUp()
	w.within(t, askAgainAtLeast+patience, "nobody listens", func(i message.Isolation) bool { return !byDefault(i) && !missing(socket)(i) })
}
