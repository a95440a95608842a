package acceptance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// D4: the guest's listener is gone when the connection comes: a prompt reset, not
// a hang, and not an empty success.
func TestD4ListenerGone(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{detect: "poll"}) // the slower of the two to notice
	joinNamespaces(t, b.guest, guestWire, newNamespace(t), hostWire)
	b.startAgent()
	b.startDaemon()
	// A socket that only takes what comes from a cable listens, as far as
	// anybody can see, and refuses the agent.
	l := listen(t, b.maker, socket.Spec{Address: "0.0.0.0:7000", Device: guestWire.device})
	b.view.port("tcp "+l.Addr().String(), "open")
	for range 20 {
		c, err := dial(b.host, "tcp", "127.0.0.1:7000")
		if err == nil {
			must(t, c.SetDeadline(time.Now().Add(answerTime)))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("a client of a listener that refuses gets %v", err)
		}
	}
	// The race itself, whichever side wins it.
	for range 20 {
		server, _ := b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7001"})
		b.reach("tcp", "127.0.0.1:7001")
		must(t, server.Close())
		err := try(b.host, "tcp", "127.0.0.1:7001")
		if !refused(err) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("a client of a listener that has just gone gets %v", err)
		}
	}
}

// D5: a reader that stops: its sender stops too, memory stays bounded, and every
// other flow keeps its speed. Once it reads again it gets everything.
func TestD5StalledReader(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{noRace: true})
	m := b.meet(socket.Spec{Address: "127.0.0.1:7000"})
	const bulk, stalledFlows = 10e6, 10
	before := b.timeBulk(m, bulk)

	var sent atomic.Int64
	var stalled, senders []*net.TCPConn
	ended := make(chan error, stalledFlows)
	for range stalledFlows {
		client, server := m.pair()
		must(t, server.SetDeadline(time.Time{}))
		stalled, senders = append(stalled, client), append(senders, server)
		go func() { ended <- flood(server, &sent) }()
	}
	var last int64
	still := time.Now()
	wait.Eventually(t, patience, "the senders stop", func() error {
		if now := sent.Load(); now != last {
			last, still = now, time.Now()
		}
		if time.Since(still) < time.Second {
			return fmt.Errorf("%d bytes are sent", sent.Load())
		}
		return nil
	})
	const most = stalledFlows * 20 << 20 // windows and the kernel's buffers at both ends
	if last > most {
		t.Errorf("%d bytes were sent to readers that do not read", last)
	}
	for _, p := range []*process{b.agent, b.daemon} {
		if rss := p.memory(); rss > 200<<20 {
			t.Errorf("%s uses %d MB", p.name, rss>>20)
		}
	}
	if during := b.timeBulk(m, bulk); during > 3*before+time.Second {
		t.Errorf("another flow took %v, and %v before", during, before)
	}
	// The senders end, and the readers go on.
	for _, c := range senders {
		must(t, c.SetWriteDeadline(time.Now()))
	}
	var got int64
	for _, c := range stalled {
		must(t, c.SetDeadline(time.Now().Add(patience)))
		n, err := io.Copy(io.Discard, c)
		must(t, err)
		got += n
	}
	for range stalledFlows {
		must(t, <-ended)
	}
	if got != sent.Load() {
		t.Errorf("%d bytes arrived of %d", got, sent.Load())
	}
}

// flood writes until its deadline comes, and closes.
func flood(c *net.TCPConn, sent *atomic.Int64) error {
	chunk := traffic.Noise(64 << 10)
	for {
		n, err := c.Write(chunk)
		sent.Add(int64(n))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return c.Close()
		}
		if err != nil {
			return err
		}
	}
}

// timeBulk measures a transfer both ways, the best of three, because other tests
// are at work.
func (b *bed) timeBulk(m *meeting, size int64) time.Duration {
	b.t.Helper()
	best := time.Hour
	for range 3 {
		client, server := m.pair()
		started := time.Now()
		must(b.t, wait.Together(2, func(i int) error { return traffic.Exchange([]*net.TCPConn{client, server}[i], size) }))
		best = min(best, time.Since(started))
	}
	return best
}

// D6: 5,000 connections at once and 100,000 one after another: descriptors,
// threads and memory return to the baseline. It runs alone.
func TestD6ManyConnections(t *testing.T) {
	b := startBed(t, bedConfig{noRace: true})
	const address, lanes = "127.0.0.1:7000", 4
	_, name := b.echo(socket.Spec{Network: "tcp", Address: address, Backlog: 4096})
	b.view.port(name, "open")
	parts := []*process{b.agent, b.daemon}
	files := make([]int, len(parts))
	for i, p := range parts {
		files[i] = p.descriptors()
	}
	atOnce := func() {
		const want = 5000
		n := min(want, descriptorLimit(t)*9/10/2)
		must(t, b.manyAtOnce(address, n))
		if n < want {
			t.Logf("%d connections at once, not %d: descriptors are limited to %d", n, want, descriptorLimit(t))
		}
	}
	// Memory grows to what the most connections need, and may stay there.
	atOnce()
	memory := make([]int64, len(parts))
	for i, p := range parts {
		memory[i] = p.memory()
	}
	must(t, wait.Together(lanes, func(int) error { return b.oneAfterAnother(address, 100000/lanes) }))
	atOnce()
	for i, p := range parts {
		wait.Eventually(t, patience, p.name+" has its descriptors back", func() error {
			// Epoll and the like may have come with the first connection.
			if n := p.descriptors(); n > files[i]+8 {
				return fmt.Errorf("%d now, %d before", n, files[i])
			}
			return nil
		})
		if now := p.memory(); now > memory[i]+memory[i]/4+16<<20 {
			t.Errorf("%s uses %d MB, %d MB before", p.name, now>>20, memory[i]>>20)
		}
		if n := p.threads(); n > 100 {
			t.Errorf("%s has %d threads", p.name, n)
		}
	}
	if s, err := b.status(); err != nil || s.Counts.Flows != 0 {
		t.Errorf("%d flows are left, %v", s.Counts.Flows, err)
	}
}

// manyAtOnce has n connections open, uses each, and closes them.
func (b *bed) manyAtOnce(address string, n int) error {
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	err := b.host.Do(func() error {
		for range n {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range conns {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
	}
	for _, c := range conns {
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return err
		}
	}
	return nil
}

// oneAfterAnother makes n connections, uses each and closes it in order.
func (b *bed) oneAfterAnother(address string, n int) error {
	return b.host.Do(func() error {
		for i := range n {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			err = exchange(c, []byte("x"))
			if err == nil {
				err = c.(*net.TCPConn).CloseWrite()
			}
			if err == nil {
				if _, readErr := c.Read(make([]byte, 1)); readErr != io.EOF {
					err = fmt.Errorf("not the end, but %v", readErr)
				}
			}
			c.Close()
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
		return nil
	})
}

// D7: hundreds of dials into a black hole stall nobody else.
func TestD7BlackHoles(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	const hole, alive = "127.0.0.1:7000", "127.0.0.1:7001"
	// Linux drops what asks for a connection when the queue of those that nobody
	// has accepted is full.
	m := b.meet(socket.Spec{Address: hole, Backlog: 1})
	_, name := b.echo(socket.Spec{Network: "tcp", Address: alive})
	b.view.port(name, "open")
	for full := false; !full; {
		c, err := net.Conn(nil), error(nil)
		must(t, b.guest.Do(func() error {
			c, err = net.DialTimeout("tcp", hole, answerTime/8)
			return nil
		}))
		if full = err != nil; !full {
			defer c.Close()
		}
	}
	var conns []*net.TCPConn
	for range 300 {
		conns = append(conns, b.connect(m.address))
	}
	for range 50 {
		started := time.Now()
		must(t, try(b.host, "tcp", alive))
		if took := time.Since(started); took > time.Second {
			t.Errorf("another connection took %v", took)
		}
	}
	// They do hang: neither refused nor accepted.
	must(t, conns[0].SetReadDeadline(time.Now().Add(answerTime/8)))
	if _, err := conns[0].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection into the black hole gives %v", err)
	}
}

// descriptors is how many the process has open.
func (p *process) descriptors() int {
	p.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid()))
	must(p.t, err)
	return len(entries)
}

// memory is the resident set of the process in bytes.
func (p *process) memory() int64 { return int64(p.statusValue("VmRSS")) << 10 }

func (p *process) threads() int { return p.statusValue("Threads") }

// statusValue reads a number of /proc/PID/status; sizes are in KiB.
func (p *process) statusValue(key string) int {
	p.t.Helper()
	text, err := readFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	must(p.t, err)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			must(p.t, err)
			return n
		}
	}
	p.t.Fatalf("no %s in the status of %s", key, p.name)
	return 0
}
