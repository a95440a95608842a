package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

const patience = 30 * time.Second

// host notes what an agent tells.
type host struct {
	said chan message.Message
	up   chan *link.Session
}

func (h *host) Up(s *link.Session)                         { h.up <- s }
func (h *host) Message(_ *link.Session, m message.Message) { h.said <- m }
func (h *host) Stream(s *link.Stream)                      { s.Refuse(wire.CodeDenied) }
func (h *host) Datagrams(f *link.DatagramFlow)             { f.Refuse(wire.CodeDenied) }
func (h *host) Down(*link.Session, error)                  {}

// TestIsolationFirst holds G2: the first that a session tells is about the agent,
// evidence of isolation with it, and only then what listens. Evidence that
// appears and goes is told again.
func TestIsolationFirst(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	dir := t.TempDir()
	key, err := linkkey.LoadOrCreate(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // something to tell
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	log := logrus.New()
	log.SetOutput(io.Discard)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	socket := filepath.Join(dir, "agent")
	running.Go(func() {
		if err := Run(ctx, Config{Listen: "unix://" + socket, KeyFile: filepath.Join(dir, "key"), Detect: DetectPoll, Logger: log}); err != nil {
			t.Error(err)
		}
	})
	// The first session waits for engines, the later ones do not.
	for session := range 3 {
		h := &host{said: make(chan message.Message, 1024), up: make(chan *link.Session, 1)}
		ctx, hangUp := context.WithCancel(ctx)
		connector := link.Connector{
			Config: link.Config{Key: key[:], Handler: h, Log: log},
			Dial:   func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) },
			Conns:  1,
		}
		var connecting sync.WaitGroup
		connecting.Go(func() { _ = connector.Run(ctx) })
		wait.For(t, patience, "a session", h.up)
		first := wait.For(t, patience, "the first message", h.said)
		if first.Agent == nil || first.Agent.Isolation == nil {
			t.Errorf("session %d: the first message is %+v", session, first)
		}
		for wait.For(t, patience, "listeners", h.said).Listeners == nil {
		}
		if session == 2 {
			evidenceIsTold(t, h)
		}
		hangUp()
		connecting.Wait()
	}
}

// evidenceIsTold starts and ends a process of sysbox, and waits for the host to
// hear of both.
func evidenceIsTold(t *testing.T, h *host) {
	t.Helper()
	script := filepath.Join(t.TempDir(), "sysbox-mgr")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread nothing\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(script)
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	want := message.IsolationFinding{
		Kind:   message.IsolationSysboxProcess,
		Detail: fmt.Sprintf("sysbox-mgr, process %d", cmd.Process.Pid),
	}
	told := func(is bool) {
		t.Helper()
		for {
			m := wait.For(t, patience, "evidence", h.said)
			if m.Agent != nil && slices.Contains(m.Agent.Isolation.Findings, want) == is {
				return
			}
		}
	}
	told(true)
	stdin.Close()
	told(false)
}
