package vm_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/vm/orders"
)

// talker is a program that the test talks to, like a user: on the host, or in the
// machine. What it has said are output and errors.
type talker struct {
	talk.Talker
	kill func()        // ends it, and waits
	done chan struct{} // closed when it has ended
	err  error         // how, valid after done
}

func newTalker(t testing.TB, name string) *talker {
	return &talker{
		Talker: talk.Talker{T: t, Name: name, Said: new(talk.Transcript), Patience: patience},
		done:   make(chan struct{}),
	}
}

// spawn starts a program on the host.
func spawn(t testing.TB, where *netns.Namespace, cmd *exec.Cmd) *talker {
	t.Helper()
	k := newTalker(t, cmd.String())
	var err error
	if k.In, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = k.Said, k.Said
	// A child of it, such as the device, may keep its output.
	cmd.WaitDelay = time.Second
	if err := where.Start(cmd); err != nil {
		t.Fatalf("start %s: %v", k.Name, err)
	}
	go func() {
		defer close(k.done)
		k.err = cmd.Wait()
	}()
	k.kill = func() {
		_ = cmd.Process.Kill()
		<-k.done
	}
	t.Cleanup(k.kill)
	return k
}

// onHost starts a program on the host.
func (s *system) onHost(args ...string) *talker {
	s.t.Helper()
	return spawn(s.t, s.host, exec.Command(args[0], args[1:]...))
}

// inGuest starts a program in the machine, which ends with the test.
func (s *system) inGuest(args ...string) *talker {
	s.t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	k := newTalker(s.t, strings.Join(args, " "))
	k.In = w
	go func() {
		defer close(k.done)
		k.err = s.guest.Run(ctx, orders.Command{Args: args, Stdin: r, Stdout: k.Said, Stderr: k.Said})
	}()
	k.kill = func() {
		cancel()
		<-k.done
		w.Close()
	}
	s.t.Cleanup(k.kill)
	return k
}

// run runs a program of the machine to its end, which must be a good one, and
// gives what it printed.
func (s *system) run(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	must(s.t, err)
	return out
}

func (s *system) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := s.guest.Output(ctx, args...)
	return strings.TrimSpace(out), err
}

// give runs a program of the machine with an input.
func (s *system) give(in io.Reader, args ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out bytes.Buffer
	err := s.guest.Run(ctx, orders.Command{Args: args, Stdin: in, Stdout: &out})
	if err != nil {
		s.t.Fatalf("%v: %s", err, out.String())
	}
}

// put brings a program into the machine.
func (s *system) put(from, to string) {
	s.t.Helper()
	f, err := os.Open(from)
	must(s.t, err)
	defer f.Close()
	s.give(f, "sh", "-c", "cat > "+to+" && chmod 755 "+to)
}

// patience is how long a test waits for what must happen but is not timed: in an
// emulated machine on a busy one.
const patience = 2 * time.Minute

// must fails the test at an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused tells whether an error is a refusal: by the port, or of a connection
// that was not accepted yet.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
