package netstack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// bridged is a network namespace behind a bridge of this one, as a container
// is: with a route to us, forwarding on, and masquerading.
type bridged struct {
	calls chan func()
}

func newBridged(t *testing.T) *bridged {
	t.Helper()
	b := &bridged{calls: make(chan func())}
	thread := make(chan int)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
		}
		thread <- unix.Gettid()
		for call := range b.calls {
			call()
		}
	}()
	id := <-thread
	t.Cleanup(func() { close(b.calls) })
	run(t, "ip link add br0 type bridge")
	run(t, fmt.Sprintf("ip link add veth0 master br0 type veth peer name eth0 netns %d", id))
	run(t, "ip addr add 10.1.1.1/24 dev br0")
	run(t, "ip addr add fd00:1::1/64 dev br0 nodad")
	run(t, "ip link set br0 up")
	run(t, "ip link set veth0 up")
	b.do(func() {
		run(t, "ip addr add 10.1.1.2/24 dev eth0")
		run(t, "ip addr add fd00:1::2/64 dev eth0 nodad")
		run(t, "ip link set eth0 up")
		run(t, "ip route add default via 10.1.1.1")
		run(t, "ip -6 route add default via fd00:1::1")
	})
	write(t, "net/ipv4/ip_forward", "1")
	write(t, "net/ipv6/conf/all/forwarding", "1")
	return b
}

// do runs f on the namespace's thread, from which commands start, too.
func (b *bridged) do(f func()) {
	done := make(chan struct{})
	b.calls <- func() { defer close(done); f() }
	<-done
}

func run(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func write(t *testing.T, key, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// connect is one connection from this thread's namespace. net.Dial would
// begin it on a thread of its choice.
func connect(to netip.AddrPort) error {
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
	if to.Addr().Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Bounds connect as well.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 3}); err != nil {
		return err
	}
	return unix.Connect(fd, address)
}

// Containers on a bridge get nothing, this machine gets everything, whatever
// else is set up (F6).
func TestIsolation(t *testing.T) {
	for name, setup := range map[string][]string{
		"Masquerading": {
			"iptables -t nat -A POSTROUTING -s 10.1.1.0/24 -j MASQUERADE",
			"ip6tables -t nat -A POSTROUTING -s fd00:1::/64 -j MASQUERADE",
		},
		"MasqueradingAll": {
			"iptables -t nat -A POSTROUTING -j MASQUERADE",
			"ip6tables -t nat -A POSTROUTING -j MASQUERADE",
		},
		"Docker": {
			"iptables -P FORWARD DROP",
			"iptables -t nat -A POSTROUTING -s 10.1.1.0/24 ! -o br0 -j MASQUERADE",
			"iptables -A FORWARD -i br0 ! -o br0 -j ACCEPT",
			"iptables -A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		},
		"Firewall": {
			"iptables -P INPUT DROP",
			"iptables -A INPUT -i lo -j ACCEPT",
			"iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
			"ip6tables -P INPUT DROP",
			"ip6tables -A INPUT -i lo -j ACCEPT",
			"ip6tables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
		},
		"StrictReversePath": {
			"sysctl -qw net.ipv4.conf.all.rp_filter=1",
			"sysctl -qw net.ipv4.conf.default.rp_filter=1",
			"sysctl -qw net.ipv4.conf.vmbridge0.rp_filter=1",
			"nft add table inet t",
			"nft add chain inet t pre { type filter hook prerouting priority raw ; }",
			"nft add rule inet t pre fib saddr . iif oif missing drop",
		},
		// As wg-quick does it, with no priorities. It counts on the second rule
		// to come first.
		"Tunnel": {
			"ip link add tunnel type veth peer name far",
			"ip link set tunnel up",
			"ip link set far up",
			"ip route add default dev tunnel table 51820",
			"ip rule add not fwmark 51820 table 51820",
			"ip rule add table main suppress_prefixlength 0",
			"ip -6 route add default dev tunnel table 51820",
			"ip -6 rule add not fwmark 51820 table 51820",
			"ip -6 rule add table main suppress_prefixlength 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if !isolate.InNetnsWithTUN(t) {
				return
			}
			for _, program := range []string{"ip", "iptables", "ip6tables", "nft"} {
				if _, err := exec.LookPath(program); err != nil {
					t.Skip(err)
				}
			}
			container := newBridged(t)
			b := newBed(t, func(r *Request) {
				if c, err := r.Accept(); err == nil {
					c.Close()
				}
			}, nil)
			for _, command := range setup {
				run(t, command)
			}
			for _, host := range b.hosts(t) {
				to := netip.AddrPortFrom(host, 80)
				// The rules may have to find their place again.
				wait.Until(t, patience, "the machine itself reaches "+host.String(), func() bool { return connect(to) == nil })
				container.do(func() {
					if err := connect(netip.AddrPortFrom(b.gateway(host), 1)); name != "Firewall" && !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("the container does not even reach the machine: %v", err)
					}
					if err := connect(to); err == nil {
						t.Errorf("the container reaches %v", host)
					} else {
						t.Logf("from the container: %v", err)
					}
				})
			}
		})
	}
}

// gateway is the machine's address for the container.
func (b *bed) gateway(host netip.Addr) netip.Addr {
	if host.Is4() {
		return netip.MustParseAddr("10.1.1.1")
	}
	return netip.MustParseAddr("fd00:1::1")
}

// The host address answers to ping, from either of the guest's addresses.
func TestEcho(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := newBed(t, nil, nil)
	for _, test := range []struct {
		network, from string
		to            netip.Addr
		request       byte
		reply         byte
	}{
		{"ip4:icmp", "", b.Host4, 8, 0},
		{"ip4:icmp", "127.0.0.1", b.Host4, 8, 0},
		{"ip6:ipv6-icmp", "", b.Host6, 128, 129},
	} {
		if !test.to.IsValid() {
			t.Log("without IPv6:", b.NoIPv6)
			continue
		}
		c, err := net.ListenPacket(test.network, test.from)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		message := []byte{test.request, 0, 0, 0, 0, 7, 0, 1, 'h', 'e', 'l', 'l', 'o', '!'}
		sum := uint32(0)
		for i := 0; i < len(message); i += 2 {
			sum += uint32(message[i])<<8 | uint32(message[i+1])
		}
		sum = sum&0xffff + sum>>16
		message[2], message[3] = byte(^sum>>8), byte(^sum) // the kernel does it for IPv6
		if _, err := c.WriteTo(message, &net.IPAddr{IP: test.to.AsSlice()}); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 100)
		for {
			n, _, err := c.ReadFrom(got)
			if err != nil {
				t.Fatalf("no echo from %v to %q: %v", test.to, test.from, err)
			}
			if got[0] == test.reply && string(got[4:n]) == string(message[4:]) {
				break
			}
		}
	}
}
