package acceptance

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// serviceTime is how long full service may take to come back (G3).
const serviceTime = 5 * time.Second

// hasDevice tells whether the guest's device for the host is there.
func (b *bed) hasDevice() bool {
	return b.guest.Do(func() error {
		_, err := netlink.LinkByName("vmbridge0")
		return err
	}) == nil
}

// reachesWithin waits until the guest reaches the host's port at both families,
// by TCP and UDP.
func (b *bed) reachesWithin(limit time.Duration, port string) {
	b.t.Helper()
	since := time.Now()
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range []string{"127.0.0.1", "::1"} {
			wait.Eventually(b.t, limit-time.Since(since), network+" "+address+" is reached again", func() error {
				return try(b.guest, network, joinText(address, port))
			})
		}
	}
}

// rules counts the guest's routing rules for the host.
func (b *bed) rules() (n int) {
	b.t.Helper()
	for _, family := range []string{"-4", "-6"} {
		out, err := runFor(b.guest, patience, exec.Command(b.need("ip"), family, "rule"))
		must(b.t, err)
		n += strings.Count(out, "proto 173")
	}
	return n
}

// G3: the agent is killed, with what it leaves in the guest, and there is
// another one.
func TestG3ReachAgentKilled(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	b.hostEchoes("127.0.0.1:7000", "[::1]:7000")
	b.reachesWithin(serviceTime, "7000")
	rules := b.rules()
	for range 3 {
		open, err := dial(b.guest, "tcp", "127.0.0.1:7000")
		must(t, err)
		must(t, exchange(open, []byte("before")))
		b.agent.kill()
		if b.hasDevice() {
			t.Error("the device has outlived the agent")
		}
		b.isAlone("7000")
		_, err = open.Write([]byte("nobody hears this"))
		must(t, err)
		b.startAgent()
		b.reachesWithin(serviceTime, "7000")
		// The other agent knows nothing of that connection, and says so.
		must(t, open.SetDeadline(time.Now().Add(patience)))
		if _, err := open.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a connection through the agent before gives %v", err)
		}
		open.Close()
		if n := b.rules(); n != rules || n == 0 {
			t.Errorf("%d rules, and %d before", n, rules)
		}
	}
}

// G3: the daemon is killed: refused until there is another one.
func TestG3ReachDaemonKilled(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	b.hostEchoes("127.0.0.1:7000", "[::1]:7000")
	for range 3 {
		b.reachesWithin(serviceTime, "7000")
		open, err := dial(b.guest, "tcp", "127.0.0.1:7000")
		must(t, err)
		must(t, exchange(open, []byte("before")))
		b.daemon.kill()
		must(t, open.SetDeadline(time.Now().Add(answerTime)))
		if _, err := open.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a connection that was open gives %v", err)
		}
		open.Close()
		b.isAlone("7000")
		b.startDaemon()
	}
	b.reachesWithin(serviceTime, "7000")
}

// The link is cut, and comes back by itself: what was open is reset, and the next
// connection works.
func TestG3ReachLinkCut(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{transport: "tcp"})
	b.hostEchoes("127.0.0.1:7000", "[::1]:7000")
	for range 3 {
		open, err := dial(b.guest, "tcp", "127.0.0.1:7000")
		must(t, err)
		must(t, exchange(open, []byte("before")))
		_, err = runFor(b.guest, patience, exec.Command(b.need("ss"), "--kill", "sport", "=", "732"))
		must(t, err)
		must(t, open.SetDeadline(time.Now().Add(answerTime)))
		if _, err := open.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a connection that was open gives %v", err)
		}
		open.Close()
		b.reachesWithin(serviceTime, "7000")
	}
	b.awaitHostReach(control.On)
}

// Somebody takes away the device or its rules: they come back by themselves.
func TestG3ReachDamaged(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{
		"device removed": "link del vmbridge0",
		"device down":    "link set vmbridge0 down",
		"IPv4 rule":      "-4 rule del pref 900",
		"IPv6 rule":      "-6 rule del pref 900",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startReach(t, bedConfig{})
			b.hostEchoes("127.0.0.1:7000", "[::1]:7000")
			rules := b.rules()
			for range 3 {
				b.reachesWithin(serviceTime, "7000")
				_, err := runFor(b.guest, patience, exec.Command(b.need("ip"), strings.Fields(command)...))
				must(t, err)
			}
			b.reachesWithin(serviceTime, "7000")
			wait.Eventually(t, serviceTime, "the rules are as they were", func() error {
				if n := b.rules(); n != rules || n == 0 {
					return fmt.Errorf("%d, and %d before", n, rules)
				}
				return nil
			})
			b.awaitHostReach(control.On)
		})
	}
}

// D7, in this direction: a thousand connections into a port of the host that does
// not answer delay nobody who wants another one.
func TestF2BlackHole(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{noRace: true})
	b.hostEchoes("127.0.0.1:7001")
	hole := b.hostHole("127.0.0.1:7000")
	defer hole()
	for range 50 {
		for _, network := range []string{"tcp", "udp"} {
			started := time.Now()
			must(t, try(b.guest, network, "127.0.0.1:7001"))
			if took := time.Since(started); took > time.Second {
				t.Errorf("another connection, by %s, took %v", network, took)
			}
		}
		must(t, closed(b.guest, "tcp", "127.0.0.1:7002"))
	}
}

// hostHole makes a port of the host whose queue is full, which Linux answers
// with nothing, and has a thousand clients of the guest ask for it. What it
// returns ends them.
func (b *bed) hostHole(address string) (end func()) {
	b.t.Helper()
	listen(b.t, here{b.host}, socket.Spec{Address: address, Backlog: 1})
	for {
		c, err := dial(b.host, "tcp", address)
		if err != nil {
			break
		}
		b.t.Cleanup(func() { c.Close() })
	}
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(mustPort(address))}
	var fds []int
	must(b.t, b.guest.Do(func() error {
		for range 1000 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
			if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
				return fmt.Errorf("connect: %w", err)
			}
		}
		return nil
	}))
	return func() {
		for _, fd := range fds {
			if value, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); value != 0 || err != nil {
				b.t.Errorf("a connection that waits has error %d, %v", value, err)
			}
			_ = unix.Close(fd)
		}
	}
}
