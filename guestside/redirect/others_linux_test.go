package redirect

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
)

// TestAgent holds that the agent is exempt, be it in a pid namespace of its own,
// where it knows itself by another number than the kernel's programs do.
func TestAgent(t *testing.T) {
	for name, flags := range map[string]uintptr{"host pid": 0, "own pid namespace": syscall.CLONE_NEWPID} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.serveHost("tcp", port)
			b.serveHost("udp", port)
			a := startAgent(t, b.guest, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags} })
			a.must("attach", both)
			for _, network := range []string{"tcp", "udp"} {
				for _, c := range calls(network) {
					b.guest.expect(t, c, "host")
					if got := a.command("ask", c); !strings.HasPrefix(got, "ECONNREFUSED") {
						t.Errorf("the agent's own %+v: %s", c, got)
					}
				}
			}
		})
	}
}

// TestOtherNamespaces holds the part of F6 that is ours: sockets of another
// network namespace are left alone, even where the host address can be reached.
func TestOtherNamespaces(t *testing.T) {
	b, other := newBed(t), newBed(t)
	for _, x := range []*bed{b, other} {
		x.serveHost("tcp", port)
		x.serveHost("udp", port)
	}
	b.attach(both)
	for _, network := range []string{"tcp", "udp"} {
		for _, c := range calls(network) {
			b.guest.expect(t, c, "host")
			other.guest.expect(t, c, "ECONNREFUSED")
		}
	}
	r := other.guest.expect(t, call{Network: "tcp", To: at8080(both.Host4.String())}, "host")
	if r.Peer.Addr() != both.Host4 || r.Local.Addr() != both.Guest4 {
		t.Errorf("names changed in another namespace: %v", r)
	}
}

// TestEnd holds the last part of F3: when the agent is killed, and when it
// detaches, everything is at once as it is without it.
func TestEnd(t *testing.T) {
	for name, end := range map[string]func(*agent){
		"killed":   (*agent).kill,
		"detached": func(a *agent) { a.must("detach", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			for _, network := range []string{"tcp", "udp"} {
				b.serveHost(network, port)
			}
			a := b.attach(both)
			for _, network := range []string{"tcp", "udp"} {
				b.guest.expect(t, call{Network: network, To: at8080("127.0.0.1")}, "host")
			}
			end(a)
			for _, network := range []string{"tcp", "udp"} {
				for _, c := range calls(network) {
					b.guest.expect(t, c, "ECONNREFUSED")
				}
				b.guest.serve(t, "guest", network, at8080("::"))
				for _, c := range calls(network) {
					b.guest.expect(t, c, "guest")
				}
			}
		})
	}
}

// TestSeccomp holds the part of G6 about filters of system calls.
func TestSeccomp(t *testing.T) {
	b := newBed(t)
	b.serveHost("tcp", port)
	b.serveHost("udp", port)
	b.attach(both)
	for _, network := range []string{"tcp", "udp", "sendto"} {
		c := call{Network: network, To: at8080("127.0.0.1")}
		if got := b.runClient(c, nil, "seccomp"); got != "host peer 127.0.0.1:8080 local "+b.guest.ask(t, c).Local.Addr().String() {
			t.Errorf("%s: %s", network, got)
		}
	}
}

// runClient makes the call in a process of its own, in a cgroup if one is given.
func (b *bed) runClient(c call, cgroup *os.File, more ...string) string {
	b.t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := child("client", append([]string{string(text)}, more...)...)
	if cgroup != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	}
	var out []byte
	if err := b.guest.do(func() (err error) { out, err = cmd.Output(); return err }); err != nil {
		b.t.Fatal("client:", err)
	}
	return strings.TrimSpace(string(out))
}

// childCgroup makes a cgroup below the root.
func childCgroup(t *testing.T) (root, dir *os.File) {
	t.Helper()
	root, err := cgroupbpf.OpenRoot()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { root.Close() })
	name := filepath.Join(fmt.Sprintf("/proc/self/fd/%d", root.Fd()), fmt.Sprintf("vmbridge-redirect-%d", os.Getpid()))
	if err := os.Mkdir(name, 0o755); err != nil {
		t.Skip("no cgroup of our own:", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	})
	if dir, err = os.Open(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return root, dir
}

// refusal is somebody else's program: it refuses to connect to a port in the
// namespace.
func refusal(t *testing.T, netns uint64, port uint16) ebpf.ProgramSpec {
	t.Helper()
	swapped := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
	return ebpf.ProgramSpec{Name: "refusal", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect,
		License: cgroupbpf.License,
		Instructions: cgroupbpf.Join(begin(), cgroupbpf.InNetns(netns), asm.Instructions{
			asm.LoadMem(asm.R1, asm.R6, ctxPort, asm.Word),
			asm.JNE.Imm(asm.R1, int32(swapped), "out"),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		}, cgroupbpf.Allow())}
}

// TestOtherPrograms holds the part of G6 about eBPF: other users of our hooks go
// on deciding, whether they were there first or came later, at the root or below.
func TestOtherPrograms(t *testing.T) {
	b := newBed(t)
	ports := []uint16{7001, 7002, 7003, 7004}
	for _, p := range append(ports, port) {
		b.serveHost("tcp", int(p))
	}
	root, below := childCgroup(t)
	var netns uint64
	if err := b.guest.do(func() error {
		self, err := learn(root)
		netns = self.netns
		return err
	}); err != nil {
		t.Fatal(err)
	}
	refuse := func(cgroup *os.File, port uint16) {
		l, err := cgroupbpf.Attach(cgroup, refusal(t, netns, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	refuse(root, ports[0])
	refuse(below, ports[1])
	b.attach(both)
	refuse(root, ports[2])
	refuse(below, ports[3])
	for i, p := range ports {
		c := call{Network: "tcp", To: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), p).String()}
		if got := b.runClient(c, below); !strings.HasPrefix(got, "EPERM") {
			t.Errorf("program %d, client in its cgroup: %s", i, got)
		}
		want := "EPERM"
		if i%2 == 1 {
			want = "host"
		}
		b.guest.expect(t, c, want)
	}
	if got := b.runClient(call{Network: "tcp", To: at8080("127.0.0.1")}, below); !strings.HasPrefix(got, "host") {
		t.Errorf("a port that nobody refuses: %s", got)
	}
}

// TestExclusive holds that a hook with an exclusive program of somebody else
// fails by name, and takes the other hooks with it. It does so at a cgroup of its
// own, because at the root it would be in everybody's way.
func TestExclusive(t *testing.T) {
	_, below := childCgroup(t)
	prog, err := ebpf.NewProgram(new(refusal(t, 0, port)))
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	options := link.RawAttachProgramOptions{Target: int(below.Fd()), Program: prog, Attach: ebpf.AttachCGroupInet4Connect}
	if err := link.RawAttachProgram(options); err != nil {
		t.Fatal(err)
	}
	p, err := newPlan(both)
	if err != nil {
		t.Fatal(err)
	}
	if missing := missingFeature(); missing != "" {
		t.Error("where all can be loaded this is said to be missing:", missing)
	}
	if _, err = attachAll(below, p.hooks()); err == nil || !strings.Contains(err.Error(), "hook connect4") {
		t.Errorf("error %v, want one that names connect4", err)
	}
	if err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(below.Fd()), Program: prog,
		Attach: ebpf.AttachCGroupInet4Connect}); err != nil {
		t.Fatal(err)
	}
	r, err := attachAll(below, p.hooks())
	if err != nil {
		t.Fatal("after the exclusive program went:", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestAddresses holds that a configuration that cannot work is refused.
func TestAddresses(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Host4: both.Host4},
		{Host4: both.Host6, Guest4: both.Guest6},
		{Host4: both.Host4, Guest4: both.Guest4, Guest6: both.Guest6},
		{Host6: netip.MustParseAddr("::ffff:169.254.7.1"), Guest6: both.Guest6},
	} {
		if r, err := Attach(cfg); err == nil {
			r.Close()
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
