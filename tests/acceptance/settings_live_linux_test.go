package acceptance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// conversation is a client that talks to an echo server without a pause.
type conversation struct {
	what   string
	rounds atomic.Int64
	stop   chan struct{}
	ended  chan error
}

// converse starts one over each of TCP and UDP, at an address of the host. It has
// to last until the test asks for it.
func (b *bed) converse(address string) (both []*conversation) {
	b.t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		c := b.dial(network, address)
		must(b.t, hello(c))
		w := &conversation{what: network + " " + address, stop: make(chan struct{}), ended: make(chan error, 1)}
		go func() { w.ended <- w.run(c) }()
		both = append(both, w)
	}
	return both
}

func (w *conversation) run(c net.Conn) error {
	a := &asker{Conn: c}
	for {
		select {
		case <-w.stop:
			return nil
		default:
		}
		message := fmt.Appendf(nil, "round %d\n", w.rounds.Load())
		ask := exchange
		if c.LocalAddr().Network() == "udp" {
			ask = func(_ net.Conn, m []byte) error { return a.ask(m) }
			a.asked = a.asked[max(0, len(a.asked)-100):] // no answer comes that late
		}
		if err := ask(c, message); err != nil {
			return fmt.Errorf("%s, in round %d: %w", w.what, w.rounds.Load(), err)
		}
		w.rounds.Add(1)
	}
}

// lasts checks that conversations go on: each has another few rounds.
func lasts(t *testing.T, all []*conversation) {
	t.Helper()
	for _, w := range all {
		before := w.rounds.Load()
		wait.Eventually(t, patience, w.what+" goes on", func() error {
			select {
			case err := <-w.ended:
				t.Fatalf("it was cut: %v", err)
			default:
			}
			if w.rounds.Load() < before+2 {
				return errors.New("nothing is said")
			}
			return nil
		})
	}
}

// stops ends conversations that have gone on to the end.
func stops(t *testing.T, all []*conversation) {
	t.Helper()
	for _, w := range all {
		close(w.stop)
		if err := <-w.ended; err != nil {
			t.Errorf("it was cut: %v", err)
		}
	}
}

// G1: the settings are followed however the file is changed, within half a
// second, and what a change is not about goes on: a TCP connection with traffic
// and a UDP conversation.
func TestG1Ways(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name   string
		change func(b *bed, deny string)
		flags  bool // the file holds nothing else
	}{
		{name: "in place", change: func(b *bed, deny string) {
			must(b.t, os.WriteFile(b.settingsPath(), []byte(b.settingsText(denying(deny))), 0o600))
		}},
		{name: "another file", change: func(b *bed, deny string) { b.write(b.settingsText(denying(deny))) }},
		{name: "backup and new", change: func(b *bed, deny string) { // as vim may do
			must(b.t, os.Rename(b.settingsPath(), b.settingsPath()+"~"))
			must(b.t, os.WriteFile(b.settingsPath(), []byte(b.settingsText(denying(deny))), 0o600))
		}},
		{name: "symbolic link", change: func(b *bed, deny string) { // as with mounted configurations
			target := filepath.Join(b.home, fmt.Sprintf("data-%d", time.Now().UnixNano()))
			must(b.t, os.WriteFile(target, []byte(b.settingsText(denying(deny))), 0o600))
			must(b.t, os.Symlink(target, b.settingsPath()+".new"))
			must(b.t, os.Rename(b.settingsPath()+".new", b.settingsPath()))
		}},
		{name: "settings set", change: func(b *bed, deny string) { b.set("ports.deny", "["+deny+"]") }},
		{name: "removal", flags: true, change: func(b *bed, deny string) {
			if deny == "" {
				must(b.t, os.Remove(b.settingsPath()))
			} else {
				must(b.t, os.WriteFile(b.settingsPath(), []byte(denying(deny)), 0o600))
			}
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			b := startBed(t, bedConfig{fromFile: !way.flags})
			for _, port := range []string{"7000", "7001"} {
				b.spawnServer(port)
				b.servesBoth(port)
			}
			untouched := b.converse("127.0.0.1:7000")
			var slowest time.Duration
			for range 5 {
				for _, deny := range []string{"7001", ""} {
					way.change(b, deny)
					changed := time.Now()
					wait.Eventually(t, followTime, fmt.Sprintf("denying %q is in force", deny), func() error {
						if deny == "" {
							return try(b.host, "tcp", "127.0.0.1:7001")
						}
						return closed(b.host, "tcp", "127.0.0.1:7001")
					})
					slowest = max(slowest, time.Since(changed))
				}
			}
			t.Logf("in force within %v", slowest)
			lasts(t, untouched)
			stops(t, untouched)
		})
	}
}

func denying(port string) string { return "ports: {deny: [" + port + "]}\n" }

// G1: no change touches what it is not about.
func TestG1Untouched(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true})
	b.spawnServer("7000")
	b.servesBoth("7000")
	b.hostEchoes("127.0.0.1:7100")
	b.awaitHostReach(control.On)
	flows := append(b.converse("127.0.0.1:7000"), b.converse("[::1]:7000")...)
	reach, err := dial(b.guest, "tcp", "127.0.0.1:7100")
	must(t, err)
	defer reach.Close()
	must(t, exchange(reach, []byte("before")))
	second := b.another("second")
	second.spawnServer("7001")
	links := []string{b.linkEntry(), second.linkEntry()}
	for _, more := range []struct {
		name, settings string
		links          []string
	}{
		{"limits", "limits: {flows: 100, listeners: 50, udp_idle: 60s, memory: 64MiB}", links[:1]},
		{"rules", "ports: {rules: [{port: 7001, host_port: 17001}, {container: db, host_address: 127.0.0.1}]}", links[:1]},
		{"lists", "ports: {deny: [7001], allow: [7000-7010], ignore: [], ignore_processes: []}", links[:1]},
		{"a rule that changes nothing", "ports: {rules: [{port: 7000, action: forward}]}", links[:1]},
		{"host reach", "host_reach: {deny: [22], allow: [7100]}", links[:1]},
		{"a link more", "", links},
		{"its rules", "ports: {rules: [{port: 7001, host_address: 127.0.0.1}]}", links},
		{"another URL of it", "", []string{links[0], `{name: second, url: "unix:///nowhere"}`}},
		{"the order", "", []string{links[1], links[0]}},
		{"a link less", "", links[:1]},
		{"the twin", "localhost_twin: true", links[:1]},
		{"comments", "# nothing", links[:1]},
	} {
		b.write(b.settingsTextWith(more.links, more.settings))
		b.awaitInForce()
		b.awaitLinks(len(more.links))
		lasts(t, flows)
		if err := exchange(reach, []byte(more.name)); err != nil {
			t.Fatalf("%s: host reach: %v", more.name, err)
		}
	}
	stops(t, flows)
}

// awaitInForce waits until the daemon has done what the file says: its own answer
// to a change comes after that.
func (b *bed) awaitInForce() {
	b.t.Helper()
	must(b.t, control.NewClient(b.home).Unset(b.t.Context(), "isolation.enhanced_container_isolation"))
}

// G1: what a change forbids ends at once, TCP connections, UDP conversations and
// what the guest has opened.
func TestG1Forbidden(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true})
	lan := newNamespace(t)
	joinNamespaces(t, b.host, hostWire, lan, guestWire)
	wide := joinText(hostWire.v4.String(), "7000")
	b.spawnServer("7000")
	b.servesBoth("7000")
	b.hostEchoes("127.0.0.1:7100")
	b.awaitHostReach(control.On)
	for _, c := range []struct {
		key, value string
		ends       []string // addresses of the host
		reach      bool     // and what the guest has opened
	}{
		{"ports.deny", "7000", []string{"127.0.0.1:7000", "[::1]:7000", wide}, false},
		{"ports.allow", "7001", []string{"127.0.0.1:7000", wide}, false},
		{"ports.ignore", "7000", []string{"127.0.0.1:7000", wide}, false},
		{"ports.rules", "[{port: 7000, action: ignore}]", []string{"127.0.0.1:7000", wide}, false},
		{"ports.rules", "[{port: 7000, host_port: 17000}]", []string{"127.0.0.1:7000", wide}, false},
		{"ports.rules", "[{port: 7000, host_address: 127.8.9.10}]", []string{"127.0.0.1:7000", wide}, false},
		{"exposure", "loopback", []string{wide}, false},
		{"host_reach.deny", "7100", nil, true},
		{"host_reach.allow", "7101", nil, true},
		{"host_reach.enabled", "false", nil, true},
		{"isolation.enhanced_container_isolation", "true", []string{"127.0.0.1:7000", wide}, true},
	} {
		conns := map[string]net.Conn{}
		for _, address := range c.ends {
			for _, network := range []string{"tcp", "udp"} {
				conn := b.dial(network, address)
				must(t, hello(conn))
				conns[network+" "+address] = conn
			}
		}
		if c.reach {
			for _, network := range []string{"tcp", "udp"} {
				conn, err := dial(b.guest, network, "127.0.0.1:7100")
				must(t, err)
				t.Cleanup(func() { conn.Close() })
				must(t, hello(conn))
				conns[network+" localhost:7100"] = conn
			}
		}
		client := control.NewClient(b.home)
		must(t, client.Set(t.Context(), c.key, c.value))
		for name, conn := range conns {
			if err := isOver(conn); err != nil {
				t.Errorf("%s: %s: %s: %v", c.key, c.value, name, err)
			}
		}
		must(t, client.Unset(t.Context(), c.key))
		b.servesBoth("7000")
		b.reach("tcp", wide)
		b.awaitHostReach(control.On)
	}
}

// isOver checks that a connection is over, and not only its peer silent.
func isOver(c net.Conn) error {
	if c.LocalAddr().Network() == "udp" {
		err := hello(c)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("it gives %v", err)
		}
		return nil
	}
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("it gives %v", err)
	}
	return nil
}
