package acceptance

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// talker is a real program that the test talks to, like a user.
type talker struct {
	*process
	*talk.Talker
}

func (p *process) talker(in io.WriteCloser, said *talk.Transcript) *talker {
	return &talker{p, &talk.Talker{T: p.t, Name: p.name, In: in, Said: said, Patience: patience}}
}

// talk starts a program on pipes.
func (b *bed) talk(ns *netns.Namespace, cmd *exec.Cmd) *talker {
	b.t.Helper()
	said := new(talk.Transcript)
	in, err := cmd.StdinPipe()
	must(b.t, err)
	cmd.Stdout = said
	return b.spawn(ns, name(cmd), cmd).talker(in, said)
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
	said := new(talk.Transcript)
	p := b.spawn(ns, name(cmd), cmd)
	go io.Copy(said, screen)
	return p.talker(screen, said)
}

// nc starts netcat.
func (b *bed) nc(ns *netns.Namespace, args ...string) *talker {
	b.t.Helper()
	return b.talk(ns, exec.Command(b.need("nc.openbsd"), args...))
}

func name(cmd *exec.Cmd) string { return cmd.Path[strings.LastIndex(cmd.Path, "/")+1:] }

// says waits until a text is on standard error.
func (p *process) says(text string) {
	p.t.Helper()
	wait.Eventually(p.t, patience, p.name+" says "+text, func() error {
		if out := p.output(); !strings.Contains(out, text) {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	})
}
