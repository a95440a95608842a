package link_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// The tests of this file run in simulated time.

// gate is a pair of wires between two connections, which can stall.
type gate struct {
	mu   sync.Mutex
	cond sync.Cond
	shut bool
}

func newGate() *gate {
	g := &gate{}
	g.cond.L = &g.mu
	return g
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	g.shut = shut
	g.mu.Unlock()
	g.cond.Broadcast()
}

func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut {
		g.cond.Wait()
	}
}

// dial connects to a listener through the gate.
func (g *gate) dial(l *memoryListener) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		far, err := l.dial(ctx)
		if err != nil {
			return nil, err
		}
		near, inner := net.Pipe()
		carry := func(to, from net.Conn) {
			defer to.Close()
			defer from.Close()
			buf := make([]byte, 64<<10)
			for {
				n, err := from.Read(buf)
				g.pass()
				if n > 0 {
					if _, err := to.Write(buf[:n]); err != nil {
						return
					}
				}
				if err != nil {
					return
				}
			}
		}
		go carry(far, inner)
		go carry(inner, far)
		return near, nil
	}
}

// clock is a wall clock that jumps.
type clock struct {
	mu   sync.Mutex
	jump time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.jump)
}

func (c *clock) sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jump += d
}

// G4: a transport that stalls is found within 10 s, on both sides, and the link
// is back within 2 s of the stall's end.
func TestStalledTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newMemoryListener(), newGate()
		guest, host := newEnd(), newEnd()
		startServer(t, l, link.Config{Key: testKey, Handler: guest})
		states, _ := startConnector(t, 2, g.dial(l), link.Config{Key: testKey, Handler: host})
		awaitPhase(t, states, link.Up)
		time.Sleep(time.Hour) // simulated: an idle link lives, D8
		synctest.Wait()
		if len(states) > 0 {
			t.Fatalf("an idle link became %+v", <-states)
		}
		g.set(true)
		began := time.Now()
		for _, e := range []*end{host, guest} {
			if err := <-e.down; !errors.Is(err, link.ErrPeerDead) {
				t.Errorf("ended with %v", err)
			}
			// A stall may begin when something has just been heard.
			if took := time.Since(began); took < 5*time.Second || took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		}
		if s := awaitPhase(t, states, link.Down); s.Reason != link.ErrPeerDead.Error() {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Minute) // simulated
		g.set(false)
		began = time.Now()
		awaitPhase(t, states, link.Up)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("back after %s", took)
		}
	})
}

// G4: after the machine slept, a dead peer is found within 2 s, and a live one
// is kept.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{6 * time.Second, time.Hour, -time.Hour} {
		for _, dead := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				l, g, c := newMemoryListener(), newGate(), &clock{}
				guest, host := newEnd(), newEnd()
				startServer(t, l, link.Config{Key: testKey, Handler: guest})
				cfg := link.Config{Key: testKey, Handler: host}
				cfg.SetClock(c.now)
				states, _ := startConnector(t, 2, g.dial(l), cfg)
				awaitPhase(t, states, link.Up)
				time.Sleep(20 * time.Second) // simulated
				g.set(dead)
				c.sleep(jump)
				began := time.Now()
				if !dead {
					time.Sleep(time.Minute) // simulated
					synctest.Wait()
					if len(states) > 0 {
						t.Errorf("a live link became %+v after a jump of %s", <-states, jump)
					}
					return
				}
				if err := <-host.down; !errors.Is(err, link.ErrPeerDead) {
					t.Errorf("ended with %v", err)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("a jump of %s and a dead peer: took %s", jump, took)
				}
				g.set(false)
				awaitPhase(t, states, link.Up)
				if took := time.Since(began); took > 4*time.Second {
					t.Errorf("back after %s", took)
				}
			})
		}
	}
}

// A command that logs in first is waited for, as is a dial that has to start
// something; what takes its time says so, and who answers too late is given up.
func TestSlowToAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		dialTakes, answerTakes time.Duration
		up                     bool
	}{
		"at once":         {0, 0, true},
		"slow login":      {0, 50 * time.Second, true},
		"slow dial":       {50 * time.Second, 0, true},
		"login too slow":  {0, 61 * time.Second, false},
		"dial too slow":   {61 * time.Second, 0, false},
		"both within its": {59 * time.Second, 59 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newMemoryListener()
				startServer(t, l, link.Config{Key: testKey, Handler: newEnd()})
				over := make(chan struct{})
				began := time.Now()
				states, stop := runConnector(t, link.Connector{
					Config: link.Config{Key: testKey, Handler: newEnd()}, Conns: 1,
					DialTimeout: time.Minute, AnswerTimeout: time.Minute,
					Dial: func(ctx context.Context) (net.Conn, error) {
						select {
						case <-time.After(test.dialTakes):
						case <-ctx.Done():
							return nil, ctx.Err()
						}
						near, far := net.Pipe()
						go func() { // the program that logs in
							select {
							case <-time.After(test.answerTakes):
							case <-over:
								return
							}
							guest, err := l.dial(context.Background())
							if err != nil {
								_ = far.Close()
								return
							}
							go func() { _, _ = io.Copy(guest, far); _ = guest.Close() }()
							_, _ = io.Copy(far, guest)
							_ = far.Close()
						}()
						return near, nil
					},
				})
				if s := <-states; s != (link.State{Phase: link.Connecting}) {
					t.Errorf("at first: %+v", s)
				}
				if test.dialTakes+test.answerTakes > 5*time.Second {
					s := <-states
					if s.Phase != link.Connecting || s.Reason != "no answer yet, after 5s; waiting for up to 1m0s" || time.Since(began) != 5*time.Second {
						t.Errorf("after %s: %+v", time.Since(began), s)
					}
				}
				if s := <-states; (s.Phase == link.Up) != test.up || (s.Phase == link.Down) == test.up {
					t.Errorf("at last: %+v", s)
				}
				took, least := time.Since(began), min(test.dialTakes, time.Minute)+min(test.answerTakes, time.Minute)
				if took < least || took > least+time.Second {
					t.Errorf("took %s, want %s", took, least)
				}
				close(over)
				stop()
			})
		})
	}
}

// G5: whoever answers and says nothing is given up after 5 s, on both sides.
func TestSilentPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states, _ := startConnector(t, 1, func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			return near, nil
		}, link.Config{Key: testKey, Handler: newEnd()})
		began := time.Now()
		s := awaitPhase(t, states, link.Down)
		if took := time.Since(began); took != 5*time.Second || !strings.Contains(s.Reason, "no challenge within 5s") {
			t.Errorf("after %s: %+v", took, s)
		}

		l := newMemoryListener()
		guest := newEnd()
		startServer(t, l, link.Config{Key: testKey, Handler: guest})
		began = time.Now()
		var strangers []net.Conn
		for range link.MaxHandshakes {
			nc, err := l.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			strangers = append(strangers, nc)
		}
		// All places are taken, and one more is turned away at once.
		nc, err := l.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Read(make([]byte, 1)); err == nil || time.Since(began) > time.Second {
			t.Errorf("one stranger too many: %v after %s", err, time.Since(began))
		}
		for _, nc := range strangers {
			if _, err := nc.Read(make([]byte, 1)); err == nil {
				t.Error("a silent stranger is talked to")
			}
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("strangers are given up after %s", took)
		}
		good, _ := startConnector(t, 1, l.dial, link.Config{Key: testKey, Handler: newEnd()})
		awaitPhase(t, good, link.Up)
	})
}

// Attempts come at once, and then at growing intervals up to a second; a session
// that has lived makes the next attempt come at once again. Listings are told
// about every change, and only about changes.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryListener()
		guest := newEnd()
		startServer(t, l, link.Config{Key: testKey, Handler: guest})
		begin := time.Now()
		attempts := make(chan time.Duration, 1024)
		failing := 8
		states, _ := startConnector(t, 1, func(ctx context.Context) (net.Conn, error) {
			attempts <- time.Since(begin)
			if failing--; failing >= 0 {
				return nil, errors.New("nobody there")
			}
			return l.dial(ctx)
		}, link.Config{Key: testKey, Handler: newEnd()})
		var got []link.State
		for range 3 {
			got = append(got, <-states)
		}
		if want := []link.State{{Phase: link.Connecting}, {Phase: link.Down, Reason: "nobody there"}, {Phase: link.Up}}; !slices.Equal(got, want) {
			t.Errorf("%+v", got)
		}
		const ms = time.Millisecond
		for _, want := range []time.Duration{0, 20 * ms, 60 * ms, 140 * ms, 300 * ms, 620 * ms, 1260 * ms, 2260 * ms, 3260 * ms} {
			if at := <-attempts; at != want {
				t.Errorf("an attempt at %s instead of %s", at, want)
			}
		}
		s := <-guest.up
		time.Sleep(2 * time.Second) // simulated
		begin = time.Now()
		s.Close(wire.CodeShutdown, "")
		if at := <-attempts; at > time.Millisecond {
			t.Errorf("after a session the next attempt came at %s", at)
		}
	})
}

// A dial that never answers is given up.
func TestDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states, _ := startConnector(t, 1, func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, link.Config{Key: testKey, Handler: newEnd()})
		began := time.Now()
		awaitPhase(t, states, link.Down)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// A goodbye does not wait long for a peer that does not read.
func TestCloseOfAStalledLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newMemoryListener(), newGate()
		guest, host := newEnd(), newEnd()
		startServer(t, l, link.Config{Key: testKey, Handler: guest})
		states, _ := startConnector(t, 4, g.dial(l), link.Config{Key: testKey, Handler: host})
		awaitPhase(t, states, link.Up)
		s := <-host.up
		g.set(true)
		time.Sleep(4 * time.Second) // simulated: a ping is stuck
		began := time.Now()
		s.Close(wire.CodeShutdown, "")
		<-host.down
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %s", took)
		}
		g.set(false)
	})
}

// mute is a connection that cannot be written to from some moment on, and still
// hears the peer.
type mute struct {
	net.Conn
	broken *atomic.Bool
}

var errMute = errors.New("mute")

func (c mute) Write(p []byte) (int, error) {
	if c.broken.Load() {
		return 0, errMute
	}
	return c.Conn.Write(p)
}

// A connection that can only be read from is of no use: the session ends soon,
// not when the peer has become silent.
func TestWriteFailureEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryListener()
		guest, host := newEnd(), newEnd()
		startServer(t, l, link.Config{Key: testKey, Handler: guest})
		var broken atomic.Bool
		states, _ := startConnector(t, 2, func(ctx context.Context) (net.Conn, error) {
			nc, err := l.dial(ctx)
			return mute{nc, &broken}, err
		}, link.Config{Key: testKey, Handler: host})
		awaitPhase(t, states, link.Up)
		s := <-host.up
		broken.Store(true)
		began := time.Now()
		if err := s.Send(message.Message{}); !errors.Is(err, errMute) {
			t.Errorf("sent: %v", err)
		}
		if err := <-host.down; !errors.Is(err, errMute) {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %s", took)
		}
		broken.Store(false)
		awaitPhase(t, states, link.Up)
	})
}
