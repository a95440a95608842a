package vm_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/vm"
	"github.com/vmbridge/vmbridge/tests/vm/orders"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// system is a machine with an installed system, and the daemon with a link to it.
type system struct {
	t        testing.TB
	whole    testing.TB // the test that the machine lives as long as
	installs vm.System
	programs string // directory of what is built for the test
	host     *netns.Namespace
	dir      string
	home     string // of the daemon
	socket   string // of the device
	config   vm.Config
	guest    orders.Guest
	*running
}

// running is what a test may start again.
type running struct {
	machine *vm.Machine
	boots   int // of the machine
	daemon  *talker
}

// startSystem boots a system. The agent is not in it yet.
func startSystem(t *testing.T, installs vm.System) *system {
	t.Helper()
	if testing.Short() {
		t.Skip("a machine with a whole system takes minutes")
	}
	kernel := vm.FindKernel(t)
	s := &system{t: t, whole: t, installs: installs, host: newNamespace(t), running: new(running)}
	disk := installs.Disk(t, kernel)
	s.programs = t.TempDir()
	build(t, s.programs, "./cmd/vmbridge", "./cmd/vmbridge-guest", "./tests/vm/guest", "./tests/acceptance/server")
	s.dir = shortDir(t)
	s.home, s.socket = filepath.Join(s.dir, "home"), filepath.Join(s.dir, "vsock")
	s.guest = orders.Guest{Dial: s.dialOrders}
	s.config = vm.Config{
		Kernel: kernel, Disk: disk, Memory: "1G",
		Initramfs: installs.Initramfs(t, kernel, []string{"vmw_vsock_virtio_transport"}, map[string]string{
			"/usr/local/bin/guest":  filepath.Join(s.programs, "guest"),
			"/usr/local/bin/server": filepath.Join(s.programs, "server"),
		}),
		Append: "apparmor=0 mitigations=off",
		Args:   append(vm.VsockArgs(s.socket), "-nic", "none"),
	}
	t.Cleanup(s.endDevice)
	s.startDaemon()
	started := time.Now()
	s.start()
	t.Logf("booted in %v", time.Since(started).Round(100*time.Millisecond))
	return s
}

// in is the system for a subtest.
func (s *system) in(t *testing.T) *system {
	sub := *s
	sub.t = t
	return &sub
}

func newNamespace(t testing.TB) *netns.Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the host of the machine is a network namespace: needs root")
	}
	n, err := netns.New()
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("this root may not make network namespaces: %v", err)
	}
	must(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

// shortDir is a directory whose sockets have short paths.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmb")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// build builds programs of this module into a directory, for the machine as well
// as for here: static ones.
func build(t testing.TB, dir string, packages ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false", "-o", dir + "/"}, packages...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}

const linkName = "vm"

// startDaemon starts the daemon, which makes the device or takes over the one that
// runs.
func (s *system) startDaemon() {
	s.t.Helper()
	cmd := s.command("up", "--enable", "--link", fmt.Sprintf("%s=vhost-user://%s?cid=%d", linkName, s.socket, guestCID))
	daemon := spawn(s.whole, s.host, cmd)
	s.daemon = daemon
	s.whole.Cleanup(func() {
		if s.whole.Failed() {
			s.whole.Logf("the daemon:\n%s", daemon.Said)
		}
	})
	wait.Eventually(s.t, patience, "the device's socket", func() error {
		select {
		case <-s.daemon.done:
			s.t.Fatalf("the daemon has ended: %v", s.daemon.err)
		default:
		}
		_, err := os.Stat(s.hybrid())
		return err
	})
}

// command is the command line of this system's host.
func (s *system) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.programs, "vmbridge"), args...)
	cmd.Env = append(os.Environ(), control.HomeVariable+"="+s.home)
	return cmd
}

// vmbridge runs a command of the command line, to its end.
func (s *system) vmbridge(args ...string) string {
	s.t.Helper()
	k := spawn(s.t, s.host, s.command(args...))
	k.In.Close()
	select {
	case <-k.done:
	case <-time.After(patience):
		s.t.Fatalf("%s takes longer than %v", k.Name, patience)
	}
	if k.err != nil {
		s.t.Fatalf("%s: %v: %s", k.Name, k.err, k.Said)
	}
	return k.Said.String()
}

// start switches the machine on.
func (s *system) start() {
	s.t.Helper()
	machine := vm.Start(s.whole, s.config)
	s.machine, s.boots = machine, 0
	s.whole.Cleanup(func() {
		if s.whole.Failed() && s.machine == machine {
			s.whole.Logf("the agent's log:\n%s", s.agentLog())
		}
	})
	s.awaitBoot()
}

// awaitBoot waits until the machine has booted once more and takes orders.
func (s *system) awaitBoot() {
	s.t.Helper()
	s.boots++
	s.machine.WaitFor("GUEST-READY", s.boots)
	wait.Eventually(s.t, patience, "the machine takes orders", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := s.guest.Output(ctx, "true")
		return err
	})
}

func (s *system) agentLog() string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := s.guest.Output(ctx, "sh", "-c",
		"if [ -d /run/systemd/system ]; then journalctl --no-pager -o short-precise -u vmbridge-guest | tail -n 200; else tail -n 200 /var/log/vmbridge-guest.log; fi")
	if err != nil {
		out += fmt.Sprint("\nnot to be had: ", err)
	}
	return out
}

// hybrid is where the device gives connections to the machine.
func (s *system) hybrid() string { return s.socket + ".hybrid" }

// dialOrders connects to the program in the machine that takes orders.
func (s *system) dialOrders(ctx context.Context) (net.Conn, error) {
	return s.dialPort(ctx, orders.Port)
}

// dialPort connects to a vsock port of the machine, through the device alone.
func (s *system) dialPort(ctx context.Context, port uint32) (net.Conn, error) {
	e, err := transport.Parse(fmt.Sprintf("hybrid://%s?port=%d", s.hybrid(), port))
	if err != nil {
		return nil, err
	}
	return e.Dial(ctx, transport.DialOptions{})
}

// device is the process id of the device, which is nobody's child once its daemon
// was killed.
func (s *system) device() (int, error) {
	c, err := net.Dial("unix", s.hybrid())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, peerErr); err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// endDevice ends the device, which outlives its daemon, and its machine.
func (s *system) endDevice() {
	pid, err := s.device()
	if err != nil {
		return // it has ended by itself
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		s.t.Errorf("end the device: %v", err)
	}
	wait.Eventually(s.t, patience, "the device ends", func() error {
		if _, err := s.device(); err == nil {
			return errors.New("it still answers")
		}
		return nil
	})
}

func (s *system) status() (control.Status, error) {
	return control.NewClient(s.home).Status(context.Background())
}

// link is the state of the link.
func (s *system) link() (control.Link, error) {
	status, err := s.status()
	if err != nil {
		return control.Link{}, err
	}
	if len(status.Links) != 1 {
		return control.Link{}, fmt.Errorf("%d links", len(status.Links))
	}
	return status.Links[0], nil
}

// linkIs tells whether the link is in a state, and a reason that has the text.
func (s *system) linkIs(state, reason string) error {
	l, err := s.link()
	if err == nil && (l.State != state || !strings.Contains(l.Reason, reason)) {
		err = fmt.Errorf("it is %s: %s", l.State, l.Reason)
	}
	return err
}

func (s *system) awaitLink() {
	s.t.Helper()
	wait.Eventually(s.t, patience, "the link is up", func() error { return s.linkIs(control.LinkUp, "") })
}
