package link

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Phase is what a Connector is at.
type Phase string

// The phases, as `status` shows them.
const (
	Connecting Phase = "connecting"
	Up         Phase = "up"
	Refused    Phase = "refused" // the guest answered, and said no
	Down       Phase = "down"
)

// State is a phase with its reason.
type State struct {
	Phase  Phase
	Reason string // empty when up, and when connecting for the first time unless that takes long
}

// Connector is the host's end: it makes a session, and a new one whenever that
// ends.
type Connector struct {
	Config Config
	// Dial opens one transport connection.
	Dial func(context.Context) (net.Conn, error)
	// DialTimeout bounds a Dial; zero is 5 s. What has to be started first may need
	// more.
	DialTimeout time.Duration
	// AnswerTimeout bounds the wait for the guest's first word on a connection; zero
	// is 5 s. It is for connections that stand before there is somebody to answer:
	// those of a command that logs in first.
	AnswerTimeout time.Duration
	// Conns is how many connections a session has, 1 to 16.
	Conns int
	// Changed, when set, is told every change of state, in order, by the goroutine
	// of Run.
	Changed func(State)
}

// Backoff between attempts.
const (
	firstBackoff = 20 * time.Millisecond
	maxBackoff   = time.Second
	// dialTimeout bounds a dial that gets no answer at all, which takes TCP
	// minutes to give up.
	dialTimeout = 5 * time.Second
	// stableAfter is how long a session must have lived for the next attempt to
	// start at once.
	stableAfter = time.Second
)

// Run connects and reconnects until ctx ends.
func (c *Connector) Run(ctx context.Context) error {
	cfg := c.Config.withDefaults()
	last := State{}
	set := func(s State) {
		if s != last && c.Changed != nil {
			c.Changed(s)
		}
		last = s
	}
	set(State{Phase: Connecting})
	backoff := time.Duration(0)
	for {
		var began time.Time
		session, err := c.connectPatiently(ctx, cfg, set)
		if err == nil {
			began = time.Now()
			stop := context.AfterFunc(ctx, func() { session.Close(wire.CodeShutdown, "the host stops") })
			set(State{Phase: Up})
			err = session.run()
			stop()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		set(stateOf(err))
		switch {
		case !began.IsZero() && time.Since(began) > stableAfter:
			backoff = 0
		case backoff == 0:
			backoff = firstBackoff
		default:
			backoff = min(2*backoff, maxBackoff)
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connectPatiently connects. Where that may take its time, it says that it does.
func (c *Connector) connectPatiently(ctx context.Context, cfg Config, set func(State)) (session *Session, err error) {
	longest := max(c.DialTimeout, c.AnswerTimeout)
	if longest <= handshakeTimeout {
		return c.connect(ctx, cfg)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		session, err = c.connect(ctx, cfg)
	}()
	late := time.NewTimer(handshakeTimeout)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		set(State{Connecting, fmt.Sprintf("no answer yet, after %s; waiting for up to %s", handshakeTimeout, longest)})
		<-done
	}
	return session, err
}

func stateOf(err error) State {
	var goodbye *GoodbyeError
	if errors.Is(err, ErrWrongKey) {
		return State{Refused, err.Error()}
	}
	if errors.As(err, &goodbye) && goodbye.Code != wire.CodeShutdown && goodbye.Code != wire.CodeStaleSession {
		return State{Refused, err.Error()}
	}
	return State{Down, err.Error()}
}

// connect makes a session with all of its connections. It is not started yet.
func (c *Connector) connect(ctx context.Context, cfg Config) (*Session, error) {
	g := greeting{count: c.Conns}
	_, _ = rand.Read(g.session[:]) // never fails
	first, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	welcome, challenge, err := greet(ctx, first, cfg.Key, g, c.AnswerTimeout)
	if err != nil {
		_ = first.Close()
		return nil, err
	}
	conns := make([]net.Conn, c.Conns)
	conns[0] = first
	g.epoch = welcome.Epoch
	errs := make([]error, c.Conns)
	var dials sync.WaitGroup
	for i := 1; i < c.Conns; i++ {
		dials.Go(func() {
			g := g
			g.index = i
			if conns[i], errs[i] = c.dial(ctx); errs[i] != nil {
				return
			}
			again, _, err := greet(ctx, conns[i], cfg.Key, g, c.AnswerTimeout)
			if err == nil && again.Epoch != welcome.Epoch {
				err = fmt.Errorf("connection %d reached another agent", i)
			}
			errs[i] = err
		})
	}
	dials.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, nc := range conns {
			if nc != nil {
				_ = nc.Close()
			}
		}
		return nil, err
	}
	name := message.Clean(welcome.Name, 255)
	session := newSession(cfg, true, g.session, c.Conns, welcome.Epoch, name, challenge.InitialCredit)
	for _, nc := range conns {
		session.join(nc)
	}
	return session, nil
}

// dial opens one transport connection.
func (c *Connector) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.DialTimeout, dialTimeout))
	defer cancel()
	return c.Dial(ctx)
}
