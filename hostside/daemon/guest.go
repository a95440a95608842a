package daemon

import (
	"context"
	"errors"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/agentlog"
	"github.com/vmbridge/vmbridge/hostside/carry"
	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/hostside/reach"
	"github.com/vmbridge/vmbridge/vmbridge/association"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// linkGrace is how long forwards outlive their session: an agent that restarts
// is back within it, and a host port must be free again 2 s after a guest died.
const linkGrace = time.Second

// reportsAhead is how many reports may wait for the engine. They are applied
// beside the connection's reader, because opening thousands of ports takes
// longer than a flow on the same connection should wait.
const reportsAhead = 64

// guest is one link and what the daemon knows of the guest behind it. It is
// the Handler of the link's sessions.
type guest struct {
	name    string
	url     string
	engine  *forward.Engine
	reach   *reach.Reach
	carrier *carry.Carrier
	log     *logrus.Entry
	// agentLog takes the agent's log, where that comes over the link.
	agentLog *agentlog.Log
	wantsLog bool
	news     func()          // tells the daemon that about has changed
	ended    <-chan struct{} // the link is to end

	mu      sync.Mutex
	session *link.Session  // nil while the link is down
	host    message.Host   // what an agent is told
	untold  []message.Host // what this one has yet to be told
	telling bool           // a goroutine does so
	state   link.State
	limits  Limits
	agent   message.Agent
	told    bool // agent is of this session, or of one that ended a moment ago
	// isolated is why the engine that is to run the agent does not.
	isolated []message.IsolationFinding
	// judged is set when the agent has told about itself in this session, and
	// closed when that has been judged. Before, nothing of the guest is opened, and
	// the agent is told nothing.
	judged   chan struct{}
	isJudged bool
	dropped  int         // listeners that the agent does not report
	grace    *time.Timer // forgets the guest of a link that is down

	// reports is the session's, from Up to Down, and applied the goroutines that
	// pass them on and tell the agent.
	reports chan report
	applied sync.WaitGroup
}

// report is what a guest listens on, and what to wait for before it is applied:
// nothing where that is nil.
type report struct {
	message.Listeners
	judged <-chan struct{}
}

var _ link.Handler = (*guest)(nil)

func newGuest(ctx context.Context, l Link, d *Daemon) *guest {
	now := d.current()
	g := &guest{
		name: l.Name, url: l.URL, engine: d.engine, reach: d.reach,
		carrier: carry.New(association.Limits{Idle: now.Limits.UDPIdle}),
		log:     d.config.Logger.WithField("link", l.Name),
		news:    d.guestNews,
		ended:   ctx.Done(),
		state:   link.State{Phase: link.Connecting},
		limits:  now.Limits,
	}
	g.agentLog = agentlog.New(g.log)
	// The standard error of a command, and of an agent that was started here, has it
	// already.
	endpoint, err := transport.Parse(l.URL)
	g.wantsLog = err == nil && endpoint.NeedsKey() && endpoint.Scheme() != transport.Sandbox
	g.host = d.aboutHost(now)
	g.host.Log = g.wantsLog
	return g
}

// cannotStart says so for the rest of the guest's life.
func (g *guest) cannotStart(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = link.State{Phase: link.Down, Reason: err.Error()}
	g.carrier.Close()
}

// run keeps the link until ctx ends, then closes its forwards.
func (g *guest) run(ctx context.Context, key []byte, conns int, dial func(context.Context) (net.Conn, error), dialTimeout, answerTimeout time.Duration) {
	connector := link.Connector{
		Config:  link.Config{Key: key, Handler: g, Log: g.log},
		Dial:    dial,
		Conns:   conns,
		Changed: g.changed,

		DialTimeout:   dialTimeout,
		AnswerTimeout: answerTimeout,
	}
	err := connector.Run(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		g.log.WithError(err).Error("the link has ended")
	}
	g.mu.Lock()
	if g.grace != nil {
		g.grace.Stop()
	}
	g.mu.Unlock()
	g.engine.LinkDown(g.name)
	g.carrier.Close()
}

// changed notes and logs what the connector is at: one line per change, so a
// guest that is not there says so once.
func (g *guest) changed(s link.State) {
	g.mu.Lock()
	g.state = s
	g.mu.Unlock()
	switch log := g.log.WithField("url", g.url); s.Phase {
	case link.Connecting:
		if s.Reason != "" {
			log.Info("link: " + s.Reason)
		}
	case link.Up:
		log.Info("link up")
	case link.Refused:
		log.Warnf("link refused: %s", s.Reason)
	case link.Down:
		log.Warnf("link down: %s; trying again until it answers", s.Reason)
	}
}

// Up implements link.Handler.
func (g *guest) Up(s *link.Session) {
	reports := make(chan report, reportsAhead)
	g.reports = reports
	g.mu.Lock()
	defer g.mu.Unlock()
	g.session, g.untold = s, []message.Host{g.host}
	g.judged, g.isJudged = nil, false
	s.SetLimits(g.limits.Flows, g.limits.QueuedBytes)
	if g.grace != nil {
		g.grace.Stop()
	}
	g.carrier.SetSession(s)
	g.engine.SetLink(g.name, g.carrier)
	g.applied.Go(func() {
		for r := range reports {
			if r.judged != nil {
				select {
				case <-r.judged:
				case <-g.ended:
				}
			}
			g.engine.ListenersChanged(g.name, r.Listeners)
		}
	})
}

// Down implements link.Handler.
func (g *guest) Down(*link.Session, error) {
	g.carrier.SetSession(nil)
	g.mu.Lock()
	g.session = nil
	g.mu.Unlock()
	close(g.reports)
	g.applied.Wait()
	g.agentLog.Flush()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.grace = time.AfterFunc(linkGrace, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.session == nil {
			g.engine.LinkDown(g.name)
			g.told = false
			g.news()
		}
	})
}

// Message implements link.Handler.
func (g *guest) Message(_ *link.Session, m message.Message) {
	if m.Log != nil && g.wantsLog {
		g.agentLog.Add(*m.Log)
	}
	g.mu.Lock()
	if m.Agent != nil {
		news := g.judged == nil || !reflect.DeepEqual(g.agent.Isolation, m.Agent.Isolation)
		if g.judged == nil {
			g.judged = make(chan struct{})
		}
		g.agent, g.told = *m.Agent, true
		if news {
			g.news()
		}
	}
	judged := g.judged
	if m.Listeners != nil {
		g.dropped = m.Listeners.Dropped
	}
	g.mu.Unlock()
	if m.Listeners != nil {
		g.reports <- report{*m.Listeners, judged}
	}
}

// unjudged is what is to be passed to judge when the agent's first words have been
// judged; nil when they have been, or there are none.
func (g *guest) unjudged() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isJudged {
		return nil
	}
	return g.judged
}

// judge lets the session begin whose agent has been judged.
func (g *guest) judge(judged chan struct{}) {
	close(judged)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.judged == judged {
		g.isJudged = true
		g.startTelling()
	}
}

// about tells what the isolation check needs to know. What a guest has told holds
// for a moment longer than its session: one that only restarts its agent shall not
// open the others' ports for that moment.
func (g *guest) about() Guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.isolated) > 0 {
		return Guest{Link: g.name, Told: true, Isolation: &message.Isolation{Findings: g.isolated}}
	}
	if !g.told {
		return Guest{Link: g.name}
	}
	return Guest{Link: g.name, Told: true, Kernel: g.agent.Kernel, Isolation: g.agent.Isolation}
}

// engineTells notes evidence of isolation that the engine gave which is to run the
// agent.
func (g *guest) engineTells(found []message.IsolationFinding) {
	g.mu.Lock()
	news := !slices.Equal(g.isolated, found)
	g.isolated = found
	g.mu.Unlock()
	if news {
		g.news()
	}
}

// stderr logs what the command of a link writes to its standard error.
func (g *guest) stderr(line string) { g.log.WithField("stream", "stderr").Info(line) }

// shellStderr logs what comes there of a product's command, and then of the agent that
// it leads to, which logs in JSON.
func (g *guest) shellStderr(line string) {
	if strings.HasPrefix(line, "{") {
		g.agentStderr(line)
		return
	}
	g.stderr(line)
}

// agentStderr logs what an agent of ours writes there.
func (g *guest) agentStderr(line string) { g.agentLog.Add(agentlog.Parse([]byte(line))) }

// setLimits applies limits to the link and whatever it carries.
func (g *guest) setLimits(l Limits) {
	g.carrier.SetUDPIdle(l.UDPIdle)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
	if g.session != nil {
		g.session.SetLimits(l.Flows, l.QueuedBytes)
	}
}

// catchUp applies what has changed since the guest was made.
func (g *guest) catchUp(l Limits, about message.Host) {
	about.Log = g.wantsLog
	g.mu.Lock()
	limited, told := g.limits == l, g.host == about
	g.mu.Unlock()
	if !limited {
		g.setLimits(l)
	}
	if !told {
		g.tellHost(about)
	}
}

// Stream implements link.Handler.
func (g *guest) Stream(s *link.Stream) { g.reach.Stream(g.name, s) }

// Datagrams implements link.Handler.
func (g *guest) Datagrams(f *link.DatagramFlow) { g.reach.Datagrams(g.name, f) }

// cutFlows resets everything that the link carries.
func (g *guest) cutFlows() {
	g.mu.Lock()
	session := g.session
	g.mu.Unlock()
	if session != nil {
		session.CutFlows()
	}
}

// status tells what `vmbridge status` shows of the link.
func (g *guest) status() control.Link {
	g.mu.Lock()
	defer g.mu.Unlock()
	return control.Link{
		Name: g.name, URL: g.url,
		State: string(g.state.Phase), Reason: g.state.Reason,
		AgentVersion:     g.agent.Version,
		Kernel:           g.agent.Kernel,
		Detection:        control.Feature(g.agent.Detection),
		HostReach:        control.Feature(g.agent.HostReach),
		DroppedListeners: g.dropped,
	}
}
