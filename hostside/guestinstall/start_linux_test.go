package guestinstall_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/guestinstall"
	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// What the agent of these tests is: it waits for a word, as the real one does, tells
// its mask for files and where it runs, and gives back what it is sent.
const echoScript = `#!/bin/sh
case "$1 $2" in
"version ") exit 0;;
"serve --stdio") read -r word; echo "%s $(umask) $(pwd)"; exec cat;;
esac
exit 2
: `

// starter is a Starter with an agent of its own, and what it says.
type starter struct {
	guestinstall.Starter
	*guest
}

// newStarter starts the agent of that version through a command, in a guest whose
// places for agents are the test's.
func newStarter(t *testing.T, command, version string) *starter {
	t.Helper()
	g := &guest{agent: fmt.Appendf(nil, echoScript, version)}
	for len(g.agent) < 300<<10 {
		g.agent = append(g.agent, byte(len(g.agent)*7))
	}
	return &starter{guestinstall.Starter{
		Way:    transport.Way{Shell: command, List: "list-the-machines"},
		Agent:  func(string) (io.ReadCloser, int64, error) { return g.open(), int64(len(g.agent)), nil },
		Out:    g.hear(&g.out),
		Stderr: g.hear(&g.stderr),
	}, g}
}

func (g *guest) open() io.ReadCloser { return io.NopCloser(bytes.NewReader(g.agent)) }

// ownPlaces covers the directories where agents are kept.
func ownPlaces(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/var/lib", "/usr/local"} {
		if err := syscall.Mount("guest", dir, "tmpfs", 0, "size=4m,mode=755"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	}
}

// files are those in the agents' places.
func files(t *testing.T) (paths []string) {
	t.Helper()
	for _, dir := range []string{"/var/lib/vmbridge", "/usr/local/lib/vmbridge"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

// dial starts the agent and talks to it.
func (s *starter) dial(ctx context.Context, version string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := s.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return talk(c, version+" 0022 /\n")
}

// talk checks what the agent says first, and that it gives back every byte.
func talk(c net.Conn, first string) error {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "word\n"); err != nil {
		return err
	}
	sent := []byte(first)
	for i := range 100 << 10 {
		sent = append(sent, byte(i*13))
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(sent[len(first):])
		wrote <- err
	}()
	got := make([]byte, len(sent))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		return fmt.Errorf("%d bytes came back, first %.40q: %w", n, got, err)
	}
	return <-wrote
}

// TestStart: through each kind of shell, the agent is copied when it is not there,
// found when it is, replaced when it is another version, and has the pipe to itself.
func TestStart(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	for name, test := range map[string]struct{ needs, command string }{
		"dash":               {"dash", "dash"},
		"bash":               {"bash", "bash"},
		"login bash":         {"bash", "bash --login"},
		"interactive bash":   {"bash", "bash -i"},
		"busybox":            {"busybox", "busybox ash"},
		"only busybox":       {"busybox", onlyBusybox(t)},
		"message of the day": {"sh", `printf 'Welcome!\nvmbridge0123 starting\n\033[1mYou have mail. $ '; exec sh`},
		"no checksums":       {"sh", instead(t, "sha256sum", "exit 127")},
	} {
		t.Run(name, func(t *testing.T) {
			need(t, test.needs)
			ownPlaces(t)
			for i, version := range []string{"one", "one", "two", "one"} {
				s := newStarter(t, test.command, version)
				for again := range 2 {
					if err := s.dial(t.Context(), version); err != nil {
						t.Fatalf("%d: %v\n%s", i, err, s.said())
					}
					copied := again == 0 && i != 1
					if got := strings.Count(s.said(), "copying"); (got > 0) != (copied || (again == 1 && i != 1)) || got > 1 {
						t.Errorf("%d, %d: copied %d times", i, again, got)
					}
				}
				if there := files(t); len(there) != 1 || !strings.HasPrefix(there[0], "/var/lib/vmbridge/vmbridge-guest-") {
					t.Errorf("%d: there is %q", i, there)
				}
			}
		})
	}
}

// onlyBusybox is a shell that finds busybox's programs and no others.
func onlyBusybox(t *testing.T) string {
	t.Helper()
	need(t, "busybox")
	return `d=$(mktemp -d) && busybox --install -s "$d" && PATH=$d exec busybox ash`
}

// TestStartCut: a connection that breaks, anywhere in the copy, leaves nothing that the
// next start takes for the agent, and nothing else.
func TestStartCut(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	// The way in passes so many bytes on, and breaks.
	for _, bytes := range []int{0, 10, 400, 900, 5000, 100 << 10, 200 << 10, 300 << 10, 301 << 10, 302 << 10} {
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			ownPlaces(t)
			s := newStarter(t, fmt.Sprintf("dd bs=1 count=%d status=none | sh", bytes), "one")
			if err := s.dial(t.Context(), "one"); err == nil {
				t.Fatal("no error")
			}
			for _, path := range files(t) {
				if content, err := os.ReadFile(path); err != nil || string(content) != string(s.agent) {
					t.Errorf("left behind: %s", path)
				}
			}
			s.Way.Shell = "sh"
			if err := s.dial(t.Context(), "one"); err != nil {
				t.Errorf("the next time: %v\n%s", err, s.said())
			}
			if there := files(t); len(there) != 1 {
				t.Errorf("there is %q", there)
			}
		})
	}
}

// TestStartCancelled: whoever gives up in the middle leaves nothing behind.
func TestStartCancelled(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	ownPlaces(t)
	s := newStarter(t, "sh", "one")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened := 0
	s.Starter.Agent = func(string) (io.ReadCloser, int64, error) {
		if opened++; opened == 1 { // to know what it is
			return s.open(), int64(len(s.agent)), nil
		}
		first := io.LimitReader(s.open(), int64(len(s.agent)/2))
		return io.NopCloser(io.MultiReader(first, reader(func([]byte) (int, error) {
			cancel()
			return 0, ctx.Err()
		}))), int64(len(s.agent)), nil
	}
	if err := s.dial(ctx, "one"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if there := files(t); len(there) > 0 {
		t.Errorf("left behind: %q", there)
	}
}

// TestStartTogether: many that copy at once, of two versions, all get theirs.
func TestStartTogether(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	ownPlaces(t)
	var work sync.WaitGroup
	for i := range 6 {
		work.Go(func() {
			version := []string{"one", "two"}[i%2]
			s := newStarter(t, "sh", version)
			// The other version may replace this one at the last moment; a link tries
			// again.
			var err error
			for range 20 {
				if err = s.dial(t.Context(), version); err == nil {
					return
				}
			}
			t.Errorf("%d: %v\n%s", i, err, s.said())
		})
	}
	work.Wait()
	there := files(t)
	if i := slices.IndexFunc(there, func(path string) bool { return strings.Contains(path, ".new.") }); i >= 0 || len(there) == 0 {
		t.Errorf("there is %q", there)
	}
}

// TestStartChecks: the product's answer comes first, and where to look is said.
func TestStartChecks(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	ownPlaces(t)
	s := newStarter(t, "sh", "one")
	s.Way.Check = "echo [] ; echo 'no such machine' >&2; exit 125"
	err := s.dial(t.Context(), "one")
	for _, want := range []string{"exit status 125: no such machine", "list-the-machines tells"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing: %v", want, err)
		}
	}
	if there := files(t); len(there) > 0 {
		t.Errorf("changed: %q", there)
	}
	s.Way.Check = "echo []"
	if err := s.dial(t.Context(), "one"); err != nil {
		t.Error(err)
	}
}

// TestStartRests: a VM that is off is not asked for all the time, and found soon when
// it is on.
func TestStartRests(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	ownPlaces(t)
	s := newStarter(t, "exit 1", "one")
	began := time.Now()
	for range 4 { // 0, 0, 1 and 2 s
		if err := s.dial(t.Context(), "one"); err == nil {
			t.Fatal("no error")
		}
	}
	if took := time.Since(began); took < 3*time.Second || took > 6*time.Second {
		t.Errorf("four tries took %s", took)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	given := errors.New("given up")
	cancel(given)
	if err := s.dial(ctx, "one"); !errors.Is(err, given) {
		t.Errorf("got %v", err)
	}
	s.Way.Shell = "sh"
	for range 2 {
		began = time.Now()
		if err := s.dial(t.Context(), "one"); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("after a success, a start took %s", took)
	}
}

// TestStartRunsNot: an agent that cannot run in the guest does not take its place.
func TestStartRunsNot(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	ownPlaces(t)
	s := newStarter(t, "sh", "one")
	s.agent = []byte("\x7fELF but not for this machine")
	if err := s.dial(t.Context(), "one"); !errors.Is(err, guestinstall.ErrFailed) || !strings.Contains(err.Error(), "keep the agent") {
		t.Errorf("got %v", err)
	}
	if there := files(t); len(there) > 0 {
		t.Errorf("left behind: %q", there)
	}
}
