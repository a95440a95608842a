package tun

import (
	"bufio"
	"bytes"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/isolate"
)

// state is everything that Open may change.
func state(t *testing.T) string {
	t.Helper()
	var all bytes.Buffer
	for _, command := range []string{"link", "addr", "rule", "-6 rule", "route show table all", "-6 route show table all"} {
		cmd := exec.Command("ip", strings.Fields("-o "+command)...)
		cmd.Stdout, cmd.Stderr = &all, &all
		if err := cmd.Run(); err != nil {
			t.Fatalf("ip %s: %v\n%s", command, err, &all)
		}
	}
	return all.String()
}

func open(t *testing.T, cfg Config) *Device {
	t.Helper()
	d, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func run(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !true() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for: %s\n%s", what, state(t))
		}
	}
}

// leads reports where the kernel sends packets to an address.
func leads(to netip.Addr) string {
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return ""
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return ""
	}
	return link.Attrs().Name
}

// Close leaves nothing behind, and the device says nothing by itself.
func TestOpenClose(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	before := state(t)
	for range 3 {
		d := open(t, Config{})
		a := d.Addresses()
		for _, host := range []netip.Addr{a.Host4, a.Host6} {
			if host.IsValid() && leads(host) != d.Name() {
				t.Errorf("%v leads to %q", host, leads(host))
			}
		}
		if a.NoIPv6 == nil != a.Host6.IsValid() {
			t.Errorf("IPv6 addresses %v, %v, reason %v", a.Host6, a.Guest6, a.NoIPv6)
		}
		sent, err := os.ReadFile("/sys/class/net/" + d.Name() + "/statistics/tx_packets")
		if err == nil && strings.TrimSpace(string(sent)) != "0" {
			t.Errorf("%s packets were sent", sent)
		}
		for range 2 {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if after := state(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}
}

func TestConfig(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	host4, host6 := netip.MustParseAddr("169.254.9.1"), netip.MustParseAddr("fd00:9::9")
	a := open(t, Config{Name: "other7", IPv4: host4, IPv6: host6}).Addresses()
	if a.Host4 != host4 || a.Guest4 != netip.MustParseAddr("169.254.9.0") || a.NoIPv6 == nil && a.Host6 != host6 {
		t.Errorf("addresses %+v", a)
	}
	for _, bad := range []Config{
		{Name: "far-too-long-a-name"}, {Name: "a/b"}, {Name: "x%d"},
		{IPv4: netip.MustParseAddr("127.0.0.1")}, {IPv4: host6}, {IPv6: host4}, {IPv6: netip.MustParseAddr("ff02::1")},
	} {
		if d, err := Open(bad); err == nil {
			t.Errorf("%+v was opened", bad)
			d.Close()
		}
	}
}

// A pair that overlaps a route is passed over, and refused when it is wanted.
func TestOverlap(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	run(t, "ip link add d0 type veth peer name d1")
	run(t, "ip link set d0 up")
	run(t, "ip link set d1 up")
	run(t, "ip route add 169.254.0.0/16 dev d0")
	run(t, "ip route add 169.254.113.0/24 dev d0 table 99")
	if d, err := Open(Config{IPv4: netip.MustParseAddr("169.254.113.77")}); err == nil || !strings.Contains(err.Error(), "169.254.113.0/24") {
		t.Errorf("overlapping address: %v", err)
		if err == nil {
			d.Close()
		}
	}
	if a := open(t, Config{}).Addresses(); a.Host4 != netip.MustParseAddr("169.254.114.2") {
		t.Errorf("host address %v", a.Host4)
	}
}

// A guest without IPv6 gets none, with the reason.
func TestNoIPv6(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	const off = sysctls + "ipv6/conf/lo/disable_ipv6"
	if err := os.WriteFile(off, []byte("1"), 0); err != nil {
		t.Skip(err)
	}
	a := open(t, Config{}).Addresses()
	if a.Host6.IsValid() || a.NoIPv6 == nil {
		t.Errorf("addresses %+v", a)
	}
	t.Log(a.NoIPv6)
}

// TestHolder is not a test: TestKilled and TestBusy run it as another agent.
func TestHolder(t *testing.T) {
	if os.Getenv("VMBRIDGE_TEST_HOLD") == "" {
		t.Skip("only as a child of other tests")
	}
	if _, err := Open(Config{}); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("open\n")
	select {}
}

// hold starts another agent in this network namespace.
func hold(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHolder$")
	cmd.Env = append(os.Environ(), "VMBRIDGE_TEST_HOLD=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other agent says %q, %v", line, err)
	}
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// What a killed agent left is replaced.
func TestKilled(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	before := state(t)
	for range 3 {
		kill(hold(t))
		if !strings.Contains(state(t), "proto 173") {
			t.Error("a killed agent leaves no rules: this test is not needed any more")
		}
		d := open(t, Config{})
		ours := len(ourRules(t))
		if ours != 2 || leads(d.Addresses().Host4) != d.Name() {
			t.Errorf("%d rules, %v leads to %q", ours, d.Addresses().Host4, leads(d.Addresses().Host4))
		}
		d.Close()
	}
	if after := state(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// The second agent in a namespace learns who the first one is.
func TestBusy(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	other := hold(t)
	before := state(t)
	for _, name := range []string{"", "vmbridge9"} {
		d, err := Open(Config{Name: name})
		if err == nil {
			d.Close()
			t.Fatal("opened a second time")
		}
		who := "process " + strconv.Itoa(other.Process.Pid) + " ("
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), who) {
			t.Errorf("error %q, want ErrBusy and %q", err, who)
		}
	}
	if after := state(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	run(t, "ip tuntap add dev nobodys mode tun")
	if _, err := Open(Config{Name: "nobodys"}); !errors.Is(err, ErrBusy) {
		t.Errorf("a device of nobody: %v", err)
	} else {
		t.Log(err)
	}
}

// The rules find their place again, and leave those of others as they were.
func TestRulesComeBack(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	d := open(t, Config{})
	a := d.Addresses()
	run(t, "ip link add d0 type veth peer name d1")
	run(t, "ip link set d0 up")
	run(t, "ip link set d1 up")
	run(t, "ip route add default dev d0 table 51820")
	for range 3 { // as a full tunnel comes and goes
		run(t, "ip rule add not fwmark 51820 table 51820")
		run(t, "ip rule add table main suppress_prefixlength 0")
		eventually(t, "our rule is first again", func() bool { return leads(a.Host4) == d.Name() })
		if got := leads(netip.MustParseAddr("192.0.2.1")); got != "d0" {
			t.Errorf("the tunnel's own traffic leads to %q", got)
		}
		run(t, "ip rule del table 51820")
		run(t, "ip rule del table main suppress_prefixlength 0")
	}
	// As a network manager does that removes what it does not know.
	for i := range 2 {
		if err := netlink.RuleDel(&ourRules(t)[i]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both rules are back", func() bool {
			return leads(a.Host4) == d.Name() && len(ourRules(t)) == 2
		})
	}
}

// A device that somebody sets down is up again, with all that it had.
func TestSetDown(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	d := open(t, Config{})
	a := d.Addresses()
	for range 10 {
		run(t, "ip link set "+d.Name()+" down")
		eventually(t, "the way is back", func() bool {
			return leads(a.Host4) == d.Name() && (a.NoIPv6 != nil || leads(a.Host6) == d.Name())
		})
		if n := len(ourRules(t)); n != 2 {
			t.Errorf("%d rules", n)
		}
	}
}

// A route that somebody removes comes back, alone or with its address.
func TestRouteComesBack(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	d := open(t, Config{})
	a := d.Addresses()
	back := func() bool {
		return leads(a.Host4) == d.Name() && (a.NoIPv6 != nil || leads(a.Host6) == d.Name())
	}
	for range 10 {
		for _, command := range []string{"ip route flush table 732", "ip addr flush dev " + d.Name()} {
			run(t, command)
			eventually(t, "the way is back after "+command, back)
			if a.NoIPv6 == nil {
				run(t, "ip -6 route flush table 732")
				eventually(t, "the way of IPv6 is back", back)
			}
		}
	}
}

func ourRules(t *testing.T) (ours []netlink.Rule) {
	t.Helper()
	rules, err := netlink.RuleList(unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Protocol == protocol {
			ours = append(ours, r)
		}
	}
	return ours
}
