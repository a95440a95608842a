package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/hostreach"
	"github.com/vmbridge/vmbridge/guestside/isolation"
	"github.com/vmbridge/vmbridge/guestside/listeners"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// Values of Config.Detect.
const (
	DetectAuto = "auto" // eBPF where the kernel has it, else polling
	DetectPoll = "poll"
)

// Config of an agent.
type Config struct {
	// Listen is the link URL to listen on; Stdio speaks on standard input and
	// output instead.
	Listen string
	Stdio  bool
	// KeyFile holds the link key. Stdio links need none.
	KeyFile string
	Detect  string
	// HostReach configures the guest's way to the host's loopback; its Log is
	// the agent's.
	HostReach hostreach.Config
	// Isolation configures where evidence of isolation is looked for.
	Isolation isolation.Config
	Logger    *logrus.Logger
	Version   string
	// Serving is called once, when the agent listens; it may be nil.
	Serving func()
}

// Run is the agent: it serves hosts until ctx ends, or on stdio until the host
// hangs up, which is no error.
func Run(ctx context.Context, config Config) error {
	url := config.Listen
	if config.Stdio {
		url = string(transport.Stdio) + ":"
	}
	endpoint, err := transport.Parse(url)
	if err != nil {
		return err
	}
	if err := endpoint.CanListen(); err != nil {
		return err
	}
	var key []byte
	if endpoint.NeedsKey() {
		k, err := linkkey.Load(config.KeyFile)
		if err != nil {
			return err
		}
		key = k[:]
	}
	mode := listeners.Auto
	if config.Detect == DetectPoll {
		mode = listeners.Poll
	}
	tracker, err := listeners.New(listeners.Config{Detect: mode, Logger: config.Logger})
	if err != nil {
		return err
	}
	listener, err := endpoint.Listen(ctx, transport.ListenOptions{
		Refused: func(peer net.Addr) {
			config.Logger.WithField("peer", peer).Warn("refused a vsock peer that is not the host")
		},
	})
	if err != nil {
		return errors.Join(err, tracker.Close())
	}
	if warning := endpoint.Warning(); warning != "" {
		config.Logger.Warn(warning)
	}
	config.HostReach.Log = config.Logger
	hostReach := hostreach.New(config.HostReach)
	defer hostReach.Close()
	group, ctx := errgroup.WithContext(ctx)
	a := &agent{
		ctx:       ctx,
		config:    config,
		tracker:   tracker,
		deliverer: newDeliverer(ctx, config.Logger),
		hostReach: hostReach,
		isolation: isolation.New(config.Isolation),
		journal:   newJournal(),
		reports:   map[*link.Session]context.CancelFunc{},
	}
	config.Logger.AddHook(a.journal)
	detection, _ := tracker.Detection()
	config.Logger.WithFields(logrus.Fields{
		"listen": endpoint.String(), "version": config.Version,
		"detection": detection.State, "reason": detection.Reason,
	}).Info("agent started")
	if config.Serving != nil {
		config.Serving()
	}
	group.Go(func() error { return tracker.Run(ctx) })
	group.Go(func() error {
		a.isolation.Run(ctx)
		return nil
	})
	group.Go(func() error {
		server := link.NewServer(link.Config{Key: key, Name: hostName(), Handler: a, Log: config.Logger})
		if config.Stdio {
			return a.serveStdio(ctx, server, listener)
		}
		return server.Serve(ctx, listener)
	})
	err = group.Wait()
	a.work.Wait()
	a.deliverer.work.Wait()
	if err == errHungUp || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// errHungUp ends an agent on stdio whose host has gone.
var errHungUp = errors.New("the host hung up")

// serveStdio serves the one connection that standard input and output are.
func (a *agent) serveStdio(ctx context.Context, server *link.Server, l net.Listener) error {
	defer l.Close()
	conn, err := l.Accept()
	if err != nil {
		return fmt.Errorf("standard input and output: %w", err)
	}
	if err := server.ServeConn(ctx, conn); err != nil {
		return err
	}
	return errHungUp
}

// agent is the handler of all sessions.
type agent struct {
	ctx       context.Context
	config    Config
	tracker   *listeners.Tracker
	deliverer *deliverer
	hostReach *hostreach.Reach
	isolation *isolation.Watcher
	journal   *journal
	work      sync.WaitGroup // the reporting goroutines

	mu      sync.Mutex
	reports map[*link.Session]context.CancelFunc
}

var _ link.Handler = (*agent)(nil)

// Up implements link.Handler.
func (a *agent) Up(s *link.Session) {
	a.config.Logger.Info("a host is connected")
	ctx, cancel := context.WithCancel(a.ctx)
	a.mu.Lock()
	a.reports[s] = cancel
	a.mu.Unlock()
	a.work.Go(func() { a.report(ctx, s) })
}

// report tells a host about the agent, and then what listens: a host that must
// not forward is to know that before it opens a port.
func (a *agent) report(ctx context.Context, s *link.Session) {
	ended := func(err error) {
		if err != nil && ctx.Err() == nil && !errors.Is(err, link.ErrClosed) {
			a.config.Logger.WithError(err).Debug("reporting to a host has ended")
		}
	}
	select {
	case <-a.isolation.Ready():
	case <-ctx.Done():
		return
	}
	changes, err := a.reportAgent(s)
	if err != nil {
		ended(err)
		return
	}
	a.work.Go(func() { ended(a.reportListeners(ctx, s)) })
	for err == nil && changes.wait(ctx) {
		changes, err = a.reportAgent(s)
	}
	ended(err)
}

// Down implements link.Handler.
func (a *agent) Down(s *link.Session, err error) {
	a.mu.Lock()
	a.reports[s]()
	delete(a.reports, s)
	a.mu.Unlock()
	a.journal.leave(s)
	a.hostReach.Gone(s)
	a.config.Logger.WithField("reason", err).Info("a host is gone")
}

// Message implements link.Handler.
func (a *agent) Message(s *link.Session, m message.Message) {
	if m.Host != nil {
		if m.Host.Log {
			a.sendLog(s)
		}
		a.hostReach.Want(s, m.Host.HostReach)
		if idle := m.Host.UDPIdleMilliseconds; idle > 0 { // of several hosts, the last word counts
			a.hostReach.SetUDPIdle(time.Duration(idle) * time.Millisecond)
		}
	}
}

// Stream implements link.Handler.
func (a *agent) Stream(s *link.Stream) { a.deliverer.stream(s) }

// Datagrams implements link.Handler.
func (a *agent) Datagrams(f *link.DatagramFlow) { a.deliverer.datagrams(f) }

// changes are of what was told about the agent.
type changes struct{ detection, hostReach, isolation <-chan struct{} }

// wait waits for a change; false when ctx has ended.
func (c changes) wait(ctx context.Context) bool {
	select {
	case <-c.detection:
	case <-c.hostReach:
	case <-c.isolation:
	case <-ctx.Done():
		return false
	}
	return true
}

// reportAgent tells a host about the agent as it is now.
func (a *agent) reportAgent(s *link.Session) (changes, error) {
	detection, detectionChanged := a.tracker.Detection()
	hostReach, hostReachChanged := a.hostReach.State()
	isolation, isolationChanged := a.isolation.Report()
	about := message.Agent{
		Version:   a.config.Version,
		Kernel:    kernel(),
		Detection: detection,
		HostReach: hostReach,
		Isolation: &isolation,
	}
	return changes{detectionChanged, hostReachChanged, isolationChanged}, s.Send(message.Message{Agent: &about})
}

// reportListeners tells a host what listens, until either ends.
func (a *agent) reportListeners(ctx context.Context, s *link.Session) error {
	watch := a.tracker.Watch()
	defer watch.Close()
	for {
		changes, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		for _, part := range split(changes) {
			if err := s.Send(message.Message{Listeners: &part}); err != nil {
				return err
			}
		}
	}
}

// split cuts a report into messages. What goes comes before what is new, so that
// a listener that changed its address never seems to hold both.
func split(l message.Listeners) []message.Listeners {
	var parts []message.Listeners
	for keys := range slices.Chunk(l.Remove, message.MaxListenersPerMessage) {
		parts = append(parts, message.Listeners{Remove: keys, Dropped: l.Dropped})
	}
	for added := range slices.Chunk(l.Add, message.MaxListenersPerMessage) {
		if last := len(parts) - 1; last == 0 && len(parts[0].Remove) > 0 && len(parts[0].Add) == 0 {
			parts[0].Add = added // the common small change: one message
			continue
		}
		parts = append(parts, message.Listeners{Add: added, Dropped: l.Dropped})
	}
	if len(parts) == 0 {
		parts = append(parts, message.Listeners{Dropped: l.Dropped})
	}
	if l.Reset {
		parts[0].Reset = true
		for i := range parts[:len(parts)-1] {
			parts[i].More = true
		}
	}
	return parts
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "guest"
	}
	return name
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
