package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// F9: ports that the settings deny are refused, and so are those that they do
// not allow; a file that --settings names is as good as the home's.
func TestF9Ports(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, settings string
		open           []int
	}{
		{"deny", "host_reach: {deny: [7001, 7003-7004]}", []int{7000, 7002, 7005}},
		{"allow", "host_reach: {allow: [7001, 7003-7004]}", []int{7001, 7003, 7004}},
		{"both", "host_reach: {allow: [7001, 7003-7004], deny: [7003]}", []int{7001, 7004}},
		{"none", "host_reach: {allow: []}", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(shortDir(t), "named.yaml")
			must(t, os.WriteFile(file, []byte(c.settings+"\n"), 0o644))
			b := startReach(t, bedConfig{flags: []string{"--settings", file}})
			open := map[int]bool{}
			for _, port := range c.open {
				open[port] = true
			}
			for port := 7000; port <= 7005; port++ {
				b.hostEchoes(hostPort("127.0.0.1", port), hostPort("::1", port))
				for _, address := range []string{"127.0.0.1", "::1"} {
					for _, network := range []string{"tcp", "udp"} {
						err := closed(b.guest, network, hostPort(address, port))
						if open[port] {
							err = try(b.guest, network, hostPort(address, port))
						}
						if err != nil {
							t.Errorf("%s %s %d (open: %v): %v", network, address, port, open[port], err)
						}
					}
				}
			}
			reached, err := b.reached()
			must(t, err)
			for _, r := range reached {
				if denied := !open[int(r.Port)]; denied != (r.State == "denied") || denied != (r.Reason != "") {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// F9: host reach is turned off by the settings: nothing but the guest's own
// servers, the other direction works, and status says why.
func TestF9Off(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{settings: "host_reach: {enabled: false}\n"})
	if reason := b.awaitHostReach(control.Off); !strings.Contains(reason, "setting") {
		t.Errorf("host reach is off without the reason: %q", reason)
	}
	b.hostEchoes("127.0.0.1:7000", "[::1]:7000")
	b.isAlone("7000")
	b.spawnServer("7001")
	b.servesBoth("7001")
	out, err := b.vmbridge("status")
	must(t, err)
	if !strings.Contains(out, "host reach") || !strings.Contains(out, "off") {
		t.Errorf("status says %s", out)
	}
}

// isAlone checks that the guest does not reach a port of the host.
func (b *bed) isAlone(port string) {
	b.t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range localhosts {
			if err := closed(b.guest, network, joinText(address, port)); err != nil {
				b.t.Errorf("%s %s %s: %v", network, address, port, err)
			}
		}
	}
}

// F9: disable cuts what is open and refuses; enable brings it back.
func TestF9Toggle(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	b.hostEchoes("127.0.0.1:7000", "[::1]:7000")
	for range 3 {
		for _, address := range []string{"127.0.0.1:7000", "[::1]:7000"} {
			must(t, try(b.guest, "tcp", address))
			must(t, try(b.guest, "udp", address))
		}
		flow, err := dial(b.guest, "tcp", "127.0.0.1:7000")
		must(t, err)
		must(t, exchange(flow, []byte("before")))
		_, err = b.vmbridge("disable")
		must(t, err)
		must(t, flow.SetDeadline(time.Now().Add(answerTime)))
		if _, err := flow.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection that was open gives %v", err)
		}
		flow.Close()
		if reason := b.awaitHostReach(control.Off); reason == "" {
			t.Error("host reach is off without a reason")
		}
		b.isAlone("7000")
		s, err := b.status()
		must(t, err)
		if s.Counts.ReachFlows != 0 {
			t.Errorf("%d flows are left", s.Counts.ReachFlows)
		}
		_, err = b.vmbridge("enable")
		must(t, err)
		b.awaitHostReach(control.On)
	}
	must(t, try(b.guest, "tcp", "127.0.0.1:7000"))
}

// The listing shows what the guest uses while it does, and what became of it;
// status counts it.
func TestF1Listing(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	b.hostEchoes("127.0.0.1:7000")
	c, err := dial(b.guest, "tcp", "127.0.0.1:7000")
	must(t, err)
	defer c.Close()
	must(t, exchange(c, []byte("12345")))
	must(t, closed(b.guest, "tcp", "127.0.0.1:7001"))
	must(t, try(b.guest, "udp", "127.0.0.1:7000"))
	entry := func(protocol string, port uint16) (e control.ReachedPort) {
		reached, err := b.reached()
		must(t, err)
		for _, r := range reached {
			if r.Protocol == protocol && r.Port == port {
				return r
			}
		}
		t.Errorf("%s %d is not listed: %+v", protocol, port, reached)
		return e
	}
	e := entry("tcp", 7000)
	if e.State != "open" || e.Flows != 1 || e.BytesIn != 5 || e.BytesOut != 5 || e.Link != "vm" || e.Reason != "" {
		t.Errorf("an open connection: %+v", e)
	}
	if e := entry("tcp", 7001); e.State != "refused" || e.Flows != 0 || e.Reason == "" {
		t.Errorf("a closed port: %+v", e)
	}
	if e := entry("udp", 7000); e.State != "open" || e.Flows != 1 || e.BytesIn != e.BytesOut {
		t.Errorf("an association: %+v", e)
	}
	out, err := b.vmbridge("status", "--json")
	must(t, err)
	var s control.Status
	must(t, json.Unmarshal([]byte(out), &s))
	if s.Counts.ReachFlows != 2 || s.Links[0].HostReach.State != control.On {
		t.Errorf("status: %s", out)
	}
	for _, args := range [][]string{{"ports"}, {"ports", "--reach"}} {
		out, err := b.vmbridge(args...)
		must(t, err)
		if !strings.Contains(out, "tcp localhost:7000") {
			t.Errorf("vmbridge %v: %s", args, out)
		}
	}
	must(t, c.Close())
	wait.Eventually(t, patience, "the connection is no longer counted", func() error {
		if e := entry("tcp", 7000); e.Flows != 0 {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
}

// An agent that lacks the privileges says which, and the rest of the bridge
// works.
func TestF3Unprivileged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, without, missing string }{
		{"no network", "-net_admin", "CAP_NET_ADMIN"},
		{"no eBPF", "-bpf,-sys_admin", "CAP_BPF"},
		{"nothing of it", "-bpf,-sys_admin,-net_admin", "CAP_"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, bedConfig{})
			b.config.through = []string{b.need("setpriv"), "--bounding-set", c.without}
			b.startAgent()
			b.startDaemon()
			b.awaitLink()
			reason := b.awaitHostReach("unavailable")
			if !strings.Contains(reason, c.missing) || strings.Contains(reason, "\n") {
				t.Errorf("without %s the reason is %q", c.missing, reason)
			}
			b.hostEchoes("127.0.0.1:7000", "[::1]:7000")
			b.isAlone("7000")
			b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7001"})
			b.echo(socket.Spec{Network: "udp", Address: "127.0.0.1:7001"})
			b.reach("tcp", "127.0.0.1:7001")
			b.reach("udp", "127.0.0.1:7001")
			if b.hasDevice() {
				t.Error("a device is left")
			}
		})
	}
}
