package vhostdevice

import (
	"context"
	"errors"
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

	"github.com/vmbridge/vmbridge/tests/unixserver"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

func newKeeper(t *testing.T, e transport.Endpoint) (k *Keeper, log *memory) {
	t.Helper()
	log = new(memory)
	k, err := NewKeeper(e, filepath.Join(t.TempDir(), "devices", "vm.log"), newLogger(log))
	if err != nil {
		t.Fatal(err)
	}
	return k, log
}

func ensure(t *testing.T, k *Keeper) Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := k.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	s, err := ask(ctx, k.endpoint.HybridEndpoint().Path())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The first one starts a device, detached, and whoever comes later finds it.
func TestKeeper(t *testing.T) {
	e := newEndpoint(t, 7)
	leaked, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0) // would go to every child
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leaked)
	k, log := newKeeper(t, e)
	first := ensure(t, k)
	if first.CID != 7 || first.PID == os.Getpid() {
		t.Errorf("%+v", first)
	}
	proc := fmt.Sprintf("/proc/%d", first.PID)
	if sid, err := sessionOf(first.PID); sid != first.PID || err != nil {
		t.Errorf("the device is in session %d, %v", sid, err)
	}
	for name, want := range map[string]string{"cwd": "/", "fd/0": "/dev/null", "fd/1": "/dev/null", "fd/2": "/dev/null"} {
		if got, err := os.Readlink(filepath.Join(proc, name)); got != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if env, err := os.ReadFile(filepath.Join(proc, "environ")); len(env) != 0 || err != nil {
		t.Errorf("the environment is %q, %v", env, err)
	}
	if to, err := os.Readlink(filepath.Join(proc, "fd", fmt.Sprint(leaked))); to == "/dev/null" {
		t.Errorf("the child has inherited a descriptor: %v", err)
	}
	if text, err := os.ReadFile(k.logFile); !strings.Contains(string(text), "device started") {
		t.Errorf("the log: %q, %v", text, err)
	}

	again, _ := newKeeper(t, e)
	if s := ensure(t, again); s.PID != first.PID || again.child != nil {
		t.Errorf("another one runs: %+v", s)
	}
	for range 5 {
		ensure(t, k)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), fmt.Sprint(first.PID)) {
		t.Errorf("the keeper's log:\n%s", log)
	}

	// A device that was killed is replaced, with what it left behind.
	endDevice(t, e, first.PID, syscall.SIGKILL)
	if _, err := os.Lstat(e.Path()); err != nil {
		t.Errorf("the killed device left nothing: %v", err)
	}
	second := ensure(t, k)
	if second.PID == first.PID || second.CID != 7 {
		t.Errorf("%+v after %+v", second, first)
	}
	// It was ours, and leaves no zombie.
	wait.Until(t, patience, "the child to be reaped", func() bool { return syscall.Kill(first.PID, 0) == syscall.ESRCH })
}

// sessionOf is the sixth word of the process's stat, the second being in brackets.
func sessionOf(pid int) (sid int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	var state string
	var parent, group int
	_, err = fmt.Sscan(rest, &state, &parent, &group, &sid)
	return sid, err
}

// Many links and daemons at once end up with one device.
func TestManyAtOnce(t *testing.T) {
	e := newEndpoint(t, 7)
	var keepers []*Keeper
	for range 4 {
		k, _ := newKeeper(t, e)
		keepers = append(keepers, k)
	}
	var work sync.WaitGroup
	for _, k := range keepers {
		for range 3 {
			work.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := k.Ensure(ctx); err != nil {
					t.Error(err)
				}
			})
		}
	}
	work.Wait()
	s, err := ask(t.Context(), e.HybridEndpoint().Path())
	if err != nil {
		t.Fatal(err)
	}
	alive := 0
	for _, k := range keepers {
		if k.known != s.PID {
			t.Errorf("a keeper knows device %d, and %d runs", k.known, s.PID)
		}
		if k.child == nil {
			continue
		}
		if k.child.pid == s.PID {
			alive++
			continue
		}
		wait.For(t, patience, "a device too many to end", k.child.done)
	}
	if alive != 1 {
		t.Errorf("%d devices are left", alive)
	}
}

func TestOtherCID(t *testing.T) {
	e := newEndpoint(t, 7)
	k, _ := newKeeper(t, e)
	s := ensure(t, k)
	other, _ := newKeeper(t, endpointAt(t, e.Path(), 8))
	err := other.Ensure(t.Context())
	if err == nil {
		t.Fatal("taken over")
	}
	for _, want := range []string{"CID 7", "CID 8", e.Path(), fmt.Sprintf("kill %d", s.PID), "cid=7"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if again := ensure(t, k); again.PID != s.PID {
		t.Error("the device was replaced")
	}
}

// What a device cannot do is the Keeper's error, in the device's words.
func TestChildFails(t *testing.T) {
	needDevice(t)
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		path string
		want []string
	}{
		"no directory": {filepath.Join(dir, "none", "v"), []string{"no such file or directory"}},
		"proc":         {"/proc/v", []string{"/proc/v", "listen on"}}, // which even root cannot write to
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := newKeeper(t, endpointAt(t, tc.path, 7))
			var before string
			for range 3 {
				err := k.Ensure(t.Context())
				if err == nil {
					t.Fatal("a device runs")
				}
				for _, want := range append(tc.want, tc.path) {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in %q", want, err)
					}
				}
				if before != "" && before != err.Error() {
					t.Errorf("%q becomes %q: every try would be logged", before, err)
				}
				before = err.Error()
			}
		})
	}
	t.Run("log", func(t *testing.T) {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := NewKeeper(newEndpoint(t, 7), filepath.Join(file, "vm.log"), newLogger(new(memory)))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%v", err)
		}
	})
}

// Somebody else's socket is left alone, and waited for no longer than the context
// allows.
func TestForeignSocket(t *testing.T) {
	needDevice(t)
	for name, tc := range map[string]struct {
		answer func(net.Conn)
		want   string
	}{
		"another protocol": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n") }, "something else than vmbridge device"},
		"JSON":             {func(c net.Conn) { io.WriteString(c, "{}\n") }, "something else than vmbridge device"},
		"endless":          {func(c net.Conn) { io.Copy(c, zeros{}) }, "something else than vmbridge device"},
		"silent":           {func(c net.Conn) { io.Copy(io.Discard, c) }, "does not answer"},
		"a full device":    {func(c net.Conn) { io.WriteString(c, "ERR too many\x1b connections\n") }, "too many\ufffd connections"},
	} {
		t.Run(name, func(t *testing.T) {
			path := unixserver.Start(t, tc.answer)
			device := filepath.Join(filepath.Dir(path), "v")
			if err := os.Symlink(path, device+".hybrid"); err != nil {
				t.Fatal(err)
			}
			k, _ := newKeeper(t, endpointAt(t, device, 7))
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			err := k.Ensure(ctx)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v", err)
			}
			if k.child != nil {
				t.Error("a child was started")
			}
		})
	}
}

// The context bounds the wait for the turn, too.
func TestEnsureWaits(t *testing.T) {
	k, _ := newKeeper(t, newEndpoint(t, 7))
	<-k.turn
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Ensure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
