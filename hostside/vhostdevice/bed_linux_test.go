package vhostdevice

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/vhostvsock"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

const patience = 20 * time.Second

// The test program plays the child of a Keeper, with the same arguments.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "device" {
		os.Exit(m.Run())
	}
	if err := playDevice(os.Args[2:]); err != nil {
		os.Exit(1)
	}
}

func playDevice(args []string) error {
	f := flag.NewFlagSet("device", flag.ContinueOnError)
	socket, cid := f.String("socket", "", ""), f.Uint("cid", 0, "")
	idle, logFile := f.Duration("idle-exit", 0, ""), f.String("log-file", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	log, err := os.OpenFile(*logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	logger := logrus.New()
	logger.SetOutput(log)
	logger.SetFormatter(&logrus.JSONFormatter{})
	e, err := transport.Parse(fmt.Sprintf("vhost-user://%s?cid=%d", *socket, *cid))
	if err == nil {
		err = Serve(context.Background(), Config{Endpoint: e, IdleExit: *idle, Version: "test", Logger: logger})
	}
	if err != nil {
		logger.Error(err)
	}
	return err
}

func needDevice(t *testing.T) {
	t.Helper()
	if !vhostvsock.Supported() {
		t.Skip("no vhost-user device on this architecture")
	}
}

// newEndpoint is a device at a path of its own. Whatever runs there is ended in
// the end.
func newEndpoint(t *testing.T, cid uint32) transport.Endpoint {
	t.Helper()
	needDevice(t)
	dir, err := os.MkdirTemp("", "vmb")
	if err != nil {
		t.Fatal(err)
	}
	e := endpointAt(t, filepath.Join(dir, "v.sock"), cid)
	t.Cleanup(func() {
		if s, err := ask(context.Background(), e.HybridEndpoint().Path()); err == nil && s.PID != os.Getpid() {
			endDevice(t, e, s.PID, syscall.SIGKILL)
		}
		os.RemoveAll(dir)
	})
	return e
}

func endpointAt(t *testing.T, path string, cid uint32) transport.Endpoint {
	t.Helper()
	e, err := transport.Parse(fmt.Sprintf("vhost-user://%s?cid=%d", path, cid))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// endDevice ends a child and waits until it is gone. It is ours or somebody's who
// reaps it.
func endDevice(t *testing.T, e transport.Endpoint, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Errorf("kill %d: %v", pid, err)
	}
	wait.Until(t, patience, "the device to end", func() bool {
		c, err := net.Dial("unix", e.HybridEndpoint().Path())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// memory is a log that can be read while it is written.
type memory struct {
	mu sync.Mutex
	b  strings.Builder
}

func (m *memory) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.Write(p)
}

func (m *memory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.String()
}

func newLogger(w io.Writer) *logrus.Logger {
	l := logrus.New()
	l.SetOutput(w)
	return l
}

// serve runs a device in this process.
func serve(t *testing.T, e transport.Endpoint, idle time.Duration) (log *memory, stop func(), done <-chan error) {
	t.Helper()
	log = new(memory)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var once sync.WaitGroup
	once.Go(func() {
		ended <- Serve(ctx, Config{Endpoint: e, IdleExit: idle, Version: "test", Logger: newLogger(log)})
	})
	stop = func() {
		cancel()
		once.Wait()
	}
	t.Cleanup(stop)
	wait.Until(t, patience, "the device to answer", func() bool {
		_, err := ask(t.Context(), e.HybridEndpoint().Path())
		return err == nil
	})
	return log, stop, ended
}
