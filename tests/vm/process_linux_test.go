package vm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/vm/orders"
)

// transcript is what a program has printed so far.
type transcript struct {
	mu   sync.Mutex
	text []byte
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	return len(p), nil
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// talker is a program that the test talks to, like a user: on the host, or in the
// machine.
type talker struct {
	t    testing.TB
	name string
	in   io.WriteCloser
	said *transcript   // output and errors
	kill func()        // ends it, and waits
	done chan struct{} // closed when it has ended
	err  error         // how, valid after done
}

// spawn starts a program on the host.
func spawn(t testing.TB, where *netns.Namespace, cmd *exec.Cmd) *talker {
	t.Helper()
	k := &talker{t: t, name: cmd.String(), said: &transcript{}, done: make(chan struct{})}
	var err error
	if k.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = k.said, k.said
	// A child of it, such as the device, may keep its output.
	cmd.WaitDelay = time.Second
	if err := where.Start(cmd); err != nil {
		t.Fatalf("start %s: %v", k.name, err)
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
	k := &talker{t: s.t, name: strings.Join(args, " "), in: w, said: &transcript{}, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		k.err = s.guest.Run(ctx, orders.Command{Args: args, Stdin: r, Stdout: k.said, Stderr: k.said})
	}()
	k.kill = func() {
		cancel()
		<-k.done
		w.Close()
	}
	s.t.Cleanup(k.kill)
	return k
}

// types types a line.
func (k *talker) types(line string) {
	k.t.Helper()
	if _, err := io.WriteString(k.in, line+"\n"); err != nil {
		k.t.Errorf("%s: type %q: %v", k.name, line, err)
	}
}

// shows waits until a text has been printed.
func (k *talker) shows(text string) {
	k.t.Helper()
	eventually(k.t, patience, k.name+" shows "+text, func() error {
		if said := k.said.String(); !strings.Contains(said, text) {
			return fmt.Errorf("it shows %q", said)
		}
		return nil
	})
}

// chat has two programs that are connected show what is typed to the other.
func chat(client, server *talker, word string) {
	client.t.Helper()
	client.types(word + " from the client")
	server.shows(word + " from the client")
	server.types(word + " from the server")
	client.shows(word + " from the server")
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

// eventually tries until it works, and fails the test when that takes too long.
func eventually(t testing.TB, within time.Duration, what string, try func() error) {
	t.Helper()
	if err := poll(within, try); err != nil {
		t.Fatalf("%s: not within %v: %v", what, within, err)
	}
}

// poll tries until it works; the last error is returned when that takes too long.
func poll(within time.Duration, try func() error) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return err
		}
	}
}

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
