package acceptance

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
)

// talker is a real program that the test talks to, like a user.
type talker struct {
	*process
	in   io.WriteCloser
	said *transcript
}

// talk starts a program on pipes.
func (b *bed) talk(ns *netns.Namespace, cmd *exec.Cmd) *talker {
	b.t.Helper()
	said := &transcript{}
	in, err := cmd.StdinPipe()
	must(b.t, err)
	cmd.Stdout = said
	return &talker{b.spawn(ns, name(cmd), cmd), in, said}
}

// talkOnTerminal starts a program on a terminal of its own.
func (b *bed) talkOnTerminal(ns *netns.Namespace, cmd *exec.Cmd) *talker {
	b.t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	must(b.t, err)
	b.t.Cleanup(func() { screen.Close() })
	must(b.t, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	must(b.t, err)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(b.t, err)
	defer tty.Close()
	cmd.Stdin, cmd.Stdout = tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	said := &transcript{}
	p := b.spawn(ns, name(cmd), cmd)
	go io.Copy(said, screen)
	return &talker{p, screen, said}
}

// nc starts netcat.
func (b *bed) nc(ns *netns.Namespace, args ...string) *talker {
	b.t.Helper()
	return b.talk(ns, exec.Command(b.need("nc.openbsd"), args...))
}

func name(cmd *exec.Cmd) string { return cmd.Path[strings.LastIndex(cmd.Path, "/")+1:] }

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

// says waits until a text is on standard error.
func (p *process) says(text string) {
	p.t.Helper()
	eventually(p.t, patience, p.name+" says "+text, func() error {
		if out := p.output(); !strings.Contains(out, text) {
			return fmt.Errorf("it says %q", out)
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
