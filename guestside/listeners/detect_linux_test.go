package listeners

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// TestAddresses holds the guest's part of A1: every kind of address, with the
// families that it accepts.
func TestAddresses(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode})
		p := startProgram(t, nil)
		for i, c := range []struct {
			kind, bind, want string
			dual             bool
		}{
			{"4", "127.0.0.1", "127.0.0.1", false},
			{"4", "127.8.9.10", "127.8.9.10", false},
			{"4", "0.0.0.0", "0.0.0.0", false},
			{"6", "[::1]", "::1", false},
			{"6only", "[::]", "::", false},
			{"6", "[::]", "::", true},
			{"6", "[::ffff:127.0.0.1]", "127.0.0.1", false},
			{"6", "[::ffff:0.0.0.0]", "0.0.0.0", false},
		} {
			for _, protocol := range []message.Protocol{message.TCP, message.UDP} {
				name := fmt.Sprintf("%s%d", protocol, i)
				port := 7000 + i
				p.listen(name, string(protocol)+c.kind, fmt.Sprintf("%s:%d", c.bind, port))
				k := message.Key{Protocol: protocol, Address: netip.MustParseAddr(c.want), Port: uint16(port), DualStack: c.dual}
				o.ownedBy(k, p)
				p.do("close %s", name)
				o.lacks(k)
			}
		}
	})
}

// TestWaysToListen holds A2.
func TestWaysToListen(t *testing.T) {
	for _, c := range []struct {
		name string
		try  func(t *testing.T, o *observer, p *program)
	}{
		{"port 0", tryPortZero},
		{"listen without bind", func(t *testing.T, o *observer, p *program) {
			p.do("socket s inet stream")
			o.ownedBy(tcpKey(strings.Fields(p.do("listen s"))[0]), p)
		}},
		{"bind from a thread", func(t *testing.T, o *observer, p *program) {
			p.do("socket s inet dgram")
			p.do("threadbind s 127.0.0.1:6002")
			o.ownedBy(udpKey("127.0.0.1:6002"), p)
		}},
		{"mptcp", func(t *testing.T, o *observer, p *program) {
			p.listen("s", "mptcp4", "127.0.0.1:6003")
			p.listen("d", "mptcp6", "[::]:6004")
			o.ownedBy(tcpKey("127.0.0.1:6003"), p)
			o.ownedBy(dual(tcpKey("[::]:6004")), p)
			p.do("close s")
			o.lacks(tcpKey("127.0.0.1:6003"))
		}},
		{"inherited", tryInherited},
	} {
		t.Run(c.name, func(t *testing.T) {
			modes(t, func(t *testing.T, mode Mode) {
				c.try(t, observe(t, Config{Detect: mode}), startProgram(t, nil))
			})
		})
	}
}

func tryPortZero(t *testing.T, o *observer, p *program) {
	o.ownedBy(tcpKey(p.listen("tcp", "tcp4", "127.0.0.1:0").String()), p)
	client := p.listen("udp", "udp4", "127.0.0.1:0")
	// Something later that is reported shows that this one is not.
	p.listen("mark", "udp4", "127.0.0.1:6001")
	o.has(udpKey("127.0.0.1:6001"))
	o.never(udpKey(client.String()))
}

// tryInherited has a process listen and exit, while its child goes on.
func tryInherited(t *testing.T, o *observer, p *program) {
	p.listen("s", "tcp4", "127.0.0.1:6005")
	k := tcpKey("127.0.0.1:6005")
	o.has(k)
	heir, err := strconv.Atoi(p.do("fork s"))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(heir, syscall.SIGKILL)
	o.wait("the heir is the owner", func() bool {
		return o.known[k].Owner == message.Owner{Process: "sleep", PID: heir}
	})
	syscall.Kill(heir, syscall.SIGKILL)
	o.lacks(k)
}

// TestPortStays holds C2: the port stays until its last socket is closed.
func TestPortStays(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode})
		p := startProgram(t, nil)
		for _, kind := range []string{"stream", "dgram"} {
			k := tcpKey("127.0.0.1:6010")
			if kind == "dgram" {
				k = udpKey("127.0.0.1:6010")
			}
			for _, name := range []string{"a", "b"} {
				p.do("socket %s inet %s", name, kind)
				p.do("reuseport %s", name)
				p.do("bind %s 127.0.0.1:6010", name)
				if kind == "stream" {
					p.do("listen %s", name)
				}
			}
			o.has(k)
			p.do("close a")
			// A port that opens and one that closes afterwards bracket the looks
			// at which the first could have been lost.
			p.listen("mark", "tcp4", "127.0.0.1:6011")
			p.listen("umark", "udp4", "127.0.0.1:6011")
			o.has(tcpKey("127.0.0.1:6011"))
			o.has(udpKey("127.0.0.1:6011"))
			p.do("close mark")
			p.do("close umark")
			o.lacks(tcpKey("127.0.0.1:6011"))
			o.lacks(udpKey("127.0.0.1:6011"))
			o.mu.Lock()
			_, removed := o.removed[k]
			o.mu.Unlock()
			if removed {
				t.Errorf("%v was removed while a socket of it was open", k)
			}
			p.do("close b")
			o.lacks(k)
		}
	})
}

// TestExisting holds A3: listeners from before the tracker are in its first
// report, with their owners.
func TestExisting(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		p := startProgram(t, nil)
		p.listen("t", "tcp4", "127.0.0.1:6020")
		p.listen("u", "udp6only", "[::]:6020")
		p.do("socket c inet dgram")
		client := p.do("bind c 0.0.0.0:0")
		p.do("comm a_server")
		o := observe(t, Config{Detect: mode})
		o.mu.Lock()
		first := o.batches[0]
		o.mu.Unlock()
		if !first.Reset {
			t.Error("the first report is no snapshot")
		}
		for _, k := range []message.Key{tcpKey("127.0.0.1:6020"), udpKey("[::]:6020")} {
			found := false
			for _, l := range first.Add {
				found = found || l.Key == k && l.Owner == message.Owner{Process: "a_server", PID: p.pid()}
			}
			if !found {
				t.Errorf("%v of process %d is not in the snapshot: %+v", k, p.pid(), first.Add)
			}
		}
		o.never(udpKey(client))
		// They are followed as well.
		p.do("close t")
		o.lacks(tcpKey("127.0.0.1:6020"))
	})
}

// TestNotListening holds A5, and the part of A6 about sockets that change.
func TestNotListening(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode})
		p := startProgram(t, nil)
		p.do("socket b inet stream")
		p.do("bind b 127.0.0.1:6030")
		p.do("socket short inet dgram")
		p.do("bind short 127.0.0.1:6031")
		p.do("close short")
		p.do("socket peer inet dgram")
		p.do("bind peer 127.0.0.1:6032")
		p.do("connect peer 127.0.0.1:9")
		p.listen("mark", "udp4", "127.0.0.1:6033")
		o.has(udpKey("127.0.0.1:6033"))
		o.never(tcpKey("127.0.0.1:6030"))
		o.never(udpKey("127.0.0.1:6031"))
		o.never(udpKey("127.0.0.1:6032"))
		// A listener that is connected to its first client stays one until it is
		// closed.
		p.do("connect mark 127.0.0.1:9")
		p.listen("mark2", "udp4", "127.0.0.1:6034")
		o.has(udpKey("127.0.0.1:6034"))
		o.has(udpKey("127.0.0.1:6033"))
		p.do("close mark")
		o.lacks(udpKey("127.0.0.1:6033"))
	})
}

// TestAddressChange holds A9: one report removes the old address and adds the
// new one.
func TestAddressChange(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode})
		p := startProgram(t, nil)
		p.listen("s", "tcp4", "0.0.0.0:6040")
		o.has(tcpKey("0.0.0.0:6040"))
		p.do("close s")
		p.listen("s", "tcp4", "127.0.0.1:6040")
		o.has(tcpKey("127.0.0.1:6040"))
		o.lacks(tcpKey("0.0.0.0:6040"))
	})
}

// TestForeignNamespaces holds A7: other network namespaces and the agent's own
// sockets are not reported.
func TestForeignNamespaces(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		// The program plays the agent: its sockets are the tracker's own.
		agent := startProgram(t, nil)
		o := observe(t, Config{Detect: mode, self: agent.pid()})
		other := startProgram(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET})
		p := startProgram(t, nil)

		// The same addresses in both namespaces: the owner must be ours.
		p.listen("t", "tcp4", "0.0.0.0:6050")
		other.listen("t", "tcp4", "0.0.0.0:6050")
		other.listen("t2", "tcp4", "0.0.0.0:6051")
		other.listen("u", "udp4", "0.0.0.0:6051")
		agent.listen("a", "tcp4", "127.0.0.1:6052")
		p.listen("mark", "udp4", "127.0.0.1:6053")
		o.has(udpKey("127.0.0.1:6053"))
		o.ownedBy(tcpKey("0.0.0.0:6050"), p)
		o.never(tcpKey("127.0.0.1:6052"))
		o.never(tcpKey("0.0.0.0:6051"))
		o.never(udpKey("0.0.0.0:6051"))
		other.do("close t")
		other.do("close u")
		p.listen("mark2", "tcp4", "127.0.0.1:6054")
		o.has(tcpKey("127.0.0.1:6054"))
		o.has(tcpKey("0.0.0.0:6050"))
	})
}
