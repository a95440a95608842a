package vhostdevice

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// dialError is what whoever dials the guest is told.
func dialError(t *testing.T, e transport.Endpoint) string {
	t.Helper()
	c, err := e.HybridEndpoint().Dial(t.Context(), transport.DialOptions{})
	if err == nil {
		c.Close()
		t.Fatal("connected to a guest that is not there")
	}
	return err.Error()
}

// H3: both sockets are for this user alone. They go when the device does, and so
// does what was asked about it.
func TestServe(t *testing.T) {
	e := newEndpoint(t, 7)
	_, stop, done := serve(t, e, 0)
	paths := []string{e.Path(), e.HybridEndpoint().Path()}
	for _, path := range paths {
		if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	s, err := ask(t.Context(), e.HybridEndpoint().Path())
	if want := (Status{CID: 7, PID: os.Getpid(), Version: "test"}); s != want || err != nil {
		t.Errorf("%+v, %v, want %+v", s, err, want)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if _, err := ask(t.Context(), e.HybridEndpoint().Path()); !errors.Is(err, errAbsent) {
		t.Errorf("asked afterwards: %v", err)
	}
}

// Whoever waits for the guest learns what is missing.
func TestReasons(t *testing.T) {
	e := newEndpoint(t, 7)
	serve(t, e, 0)
	if got := dialError(t, e); !strings.HasSuffix(got, ": no virtual machine has connected to the device") {
		t.Error(got)
	}
	machine, err := net.Dial("unix", e.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	machineIs := func(there bool) func() bool {
		return func() bool {
			s, err := ask(t.Context(), e.HybridEndpoint().Path())
			return err == nil && s.Machine == there && !s.Driver
		}
	}
	wait.Until(t, patience, "the machine to be seen", machineIs(true))
	if got := dialError(t, e); !strings.HasSuffix(got, ": the guest has no driver for it yet, or is paused") {
		t.Error(got)
	}
	machine.Close()
	wait.Until(t, patience, "the machine to be gone", machineIs(false))
}

// A second device leaves the first one alone, which takes nobody's look for a
// machine.
func TestInUse(t *testing.T) {
	e := newEndpoint(t, 7)
	log, stop, _ := serve(t, e, 0)
	for range 3 {
		err := Serve(t.Context(), Config{Endpoint: e, Logger: newLogger(new(memory))})
		if !errors.Is(err, transport.ErrInUse) || !strings.Contains(err.Error(), e.Path()) {
			t.Errorf("a second device: %v", err)
		}
	}
	if s, err := ask(t.Context(), e.HybridEndpoint().Path()); err != nil || s.CID != 7 {
		t.Errorf("the first device: %+v, %v", s, err)
	}
	stop()
	if strings.Contains(log.String(), "virtual machine") {
		t.Errorf("the device's log:\n%s", log)
	}
}

func TestServeFails(t *testing.T) {
	e := newEndpoint(t, 7)
	mine := "not a socket"
	if err := os.WriteFile(e.Path(), []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Serve(t.Context(), Config{Endpoint: e, Logger: newLogger(new(memory))})
	if err == nil || !strings.Contains(err.Error(), "is no socket") || !strings.Contains(err.Error(), e.Path()) {
		t.Errorf("over a file: %v", err)
	}
	if b, _ := os.ReadFile(e.Path()); string(b) != mine {
		t.Error("the file was changed")
	}
	if _, err := os.Lstat(e.HybridEndpoint().Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the other socket is left: %v", err)
	}
}

// A device that nobody uses ends, and one that somebody uses does not.
func TestIdleExit(t *testing.T) {
	const idle = 300 * time.Millisecond
	e := newEndpoint(t, 7)
	log, _, done := serve(t, e, idle)
	for _, path := range []string{e.Path(), e.HybridEndpoint().Path()} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("ended while %s was in use: %v", path, err)
		case <-time.After(3 * idle):
		}
		c.Close()
	}
	left := time.Now()
	if err := wait.For(t, patience, "the device to end", done); err != nil {
		t.Error(err)
	}
	if after := time.Since(left); after < idle/2 {
		t.Errorf("ended %s after its last use", after)
	}
	if !strings.Contains(log.String(), "nobody uses the device") {
		t.Errorf("the log:\n%s", log)
	}
	for _, path := range []string{e.Path(), e.HybridEndpoint().Path()} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// H2: a guest that makes the device log as fast as it can fills no disk.
func TestLogLimit(t *testing.T) {
	log := new(memory)
	l := newLimitedLog(newLogger(log))
	for i := range 10_000 {
		l.printf("line %d", i)
	}
	l.close()
	lines := strings.Count(log.String(), "\n")
	if lines < logBurst || lines > logBurst+5 {
		t.Errorf("%d lines", lines)
	}
	if !strings.Contains(log.String(), "lines more were too many") {
		t.Error("nobody is told of the rest")
	}

	// So does a machine that comes and goes.
	e := newEndpoint(t, 7)
	deviceLog, stop, _ := serve(t, e, 0)
	for range 200 {
		c, err := net.Dial("unix", e.Path())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("no message of the protocol"))
		c.Read(make([]byte, 1)) // until it is thrown out
		c.Close()
	}
	stop()
	if lines := strings.Count(deviceLog.String(), "\n"); lines > logBurst+10 {
		t.Errorf("%d lines of a machine that comes and goes", lines)
	}
}
