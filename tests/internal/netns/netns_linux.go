package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace and the thread that lives in it.
type Namespace struct {
	file     *os.File
	requests chan func()
	quit     chan struct{}
	ended    chan struct{} // closed with the thread
	closing  sync.Once
	closeErr error
}

// New makes a namespace with its loopback up. It needs root.
func New() (*Namespace, error) {
	n := &Namespace{requests: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{})}
	ready := make(chan error)
	go n.live(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return n, nil
}

// live is the thread of the namespace. Children start from it, because the
// kernel takes the end of the thread that started them for their parent's
// (Pdeathsig), and a thread of Go's pool may end at any time.
func (n *Namespace) live(ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	defer close(n.ended)
	err := n.enterNew()
	ready <- err
	if err != nil {
		return
	}
	for {
		select {
		case request := <-n.requests:
			request()
		case <-n.quit:
			return
		}
	}
}

func (n *Namespace) enterNew() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	n.file, err = os.Open("/proc/thread-self/ns/net")
	return err
}

// Close ends the thread, and with it every process that Start started.
func (n *Namespace) Close() error {
	n.closing.Do(func() {
		close(n.quit)
		<-n.ended
		n.closeErr = n.file.Close()
	})
	return n.closeErr
}

// Path leads to the namespace, for nsenter --net and setns, while it is open.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// FD is a descriptor of the namespace.
func (n *Namespace) FD() int { return int(n.file.Fd()) }

// Do runs f on a thread inside the namespace. Sockets that f makes stay there,
// wherever they are used from. Several may run at once.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
			done <- os.NewSyscallError("setns", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Start starts a command inside the namespace, in a process group of its own. It
// is killed when the namespace is closed or this process dies.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if !cmd.SysProcAttr.Setsid {
		cmd.SysProcAttr.Setpgid = true
	}
	done := make(chan error)
	select {
	case n.requests <- func() { done <- cmd.Start() }:
		return <-done
	case <-n.ended:
		return errors.New("the namespace is closed")
	}
}
