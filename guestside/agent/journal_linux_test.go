package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// TestLogToHost: a host that asks for the log gets what is logged from then on and
// is above debug; one that does not ask gets nothing.
func TestLogToHost(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	dir := t.TempDir()
	key, err := linkkey.LoadOrCreate(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.SetLevel(logrus.DebugLevel)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	socket := filepath.Join(dir, "agent")
	serving := make(chan struct{})
	running.Go(func() {
		config := Config{Listen: "unix://" + socket, KeyFile: filepath.Join(dir, "key"), Detect: DetectPoll, Logger: log,
			Serving: func() { close(serving) }}
		if err := Run(ctx, config); err != nil {
			t.Error(err)
		}
	})
	wait.For(t, patience, "the agent to serve", serving)
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	connect := func() (*host, *link.Session) {
		h := &host{said: make(chan message.Message, 1024), up: make(chan *link.Session, 1)}
		connector := link.Connector{
			Config: link.Config{Key: key[:], Handler: h, Log: silent},
			Dial:   func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) },
			Conns:  1,
		}
		running.Go(func() { _ = connector.Run(ctx) })
		return h, wait.For(t, patience, "a session", h.up)
	}
	asks, session := connect()
	mute, _ := connect()
	log.Info("before it asked")
	next := func(what string, is func(message.Message) bool) message.Message {
		t.Helper()
		for {
			if m := wait.For(t, patience, what, asks.said); is(m) {
				return m
			}
		}
	}
	isAgent := func(m message.Message) bool { return m.Agent != nil }
	isLog := func(m message.Message) bool { return m.Log != nil }
	next("the first report", isAgent)
	if err := session.Send(message.Message{Host: &message.Host{Log: true}}); err != nil {
		t.Fatal(err)
	}
	next("the answer", isAgent)
	log.WithError(errors.New("denied")).WithField("n", 3).Error("trouble")
	log.Debug("a detail")
	log.Info("the end")
	if l := next("a line of the log", isLog).Log; l.Text != "trouble" || l.Level != "error" || fmt.Sprint(l.Fields) != "map[error:denied n:3]" {
		t.Errorf("got %+v", l)
	}
	if l := next("a line of the log", isLog).Log; l.Text != "the end" || l.Level != "info" {
		t.Errorf("got %+v", l)
	}
	for {
		select {
		case m := <-mute.said:
			if m.Log != nil {
				t.Fatalf("a host that did not ask got %+v", m.Log)
			}
			continue
		default:
		}
		break
	}
}

// TestJournalNeverWaits: a host that does not read costs lines, which are counted,
// and no time.
func TestJournalNeverWaits(t *testing.T) {
	j := newJournal()
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.AddHook(j)
	s := new(link.Session)
	lines, ok := j.join(s)
	if _, again := j.join(s); !ok || again {
		t.Fatal("a host joins once")
	}
	const logged = queuedLines + 100
	for range logged {
		log.Info("x")
	}
	for range queuedLines {
		if l := <-lines; l.Dropped != 0 {
			t.Fatalf("%d dropped", l.Dropped)
		}
	}
	log.Info("y")
	log.Info("z")
	if l := <-lines; l.Text != "y" || l.Dropped != logged-queuedLines {
		t.Errorf("got %+v", l)
	}
	if l := <-lines; l.Text != "z" || l.Dropped != 0 {
		t.Errorf("got %+v", l)
	}
	j.leave(s)
	log.Info("nobody hears")
	if len(lines) > 0 {
		t.Error("a line for a host that is gone")
	}
}
