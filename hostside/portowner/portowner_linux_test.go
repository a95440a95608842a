package portowner_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/portowner"
	"github.com/vmbridge/vmbridge/tests/isolate"
)

func comm(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:len(b)-1])
}

func occupy(t *testing.T) {
	t.Helper()
	for _, at := range []string{"127.0.0.1:8000", "[::]:8001"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	c, err := net.ListenPacket("udp4", "0.0.0.0:8002")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}

var asked = []portowner.Port{
	{Protocol: "tcp", At: netip.MustParseAddrPort("127.0.0.1:8000")},
	{Protocol: "tcp", At: netip.MustParseAddrPort("0.0.0.0:8000")},   // a specific owner in the way of a wildcard
	{Protocol: "tcp", At: netip.MustParseAddrPort("127.0.0.1:8001")}, // a dual-stack owner in the way of IPv4
	{Protocol: "udp", At: netip.MustParseAddrPort("127.0.0.1:8002")}, // a wildcard owner in the way of a specific
}

// TestFind names a visible owner: this process (B1).
func TestFind(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	occupy(t)
	owners, err := portowner.Find(context.Background(), append(asked,
		portowner.Port{Protocol: "udp", At: netip.MustParseAddrPort("127.0.0.1:8000")},
		portowner.Port{Protocol: "tcp", At: netip.MustParseAddrPort("127.0.0.2:8000")}))
	if err != nil {
		t.Fatal(err)
	}
	want := portowner.Owner{Process: comm(t), PID: os.Getpid()}
	for i, p := range asked {
		if owners[i] != want {
			t.Errorf("%v: %+v, want %+v", p, owners[i], want)
		}
	}
	for i := len(asked); i < len(owners); i++ {
		if owners[i] != (portowner.Owner{}) {
			t.Errorf("a free port has the owner %+v", owners[i])
		}
	}
}

// TestOccupy is a process of its own for TestFindHidden: it holds the ports until
// its standard input ends.
func TestOccupy(t *testing.T) {
	if os.Getenv("VMBRIDGE_TEST_OCCUPY") == "" {
		t.Skip("part of TestFindHidden")
	}
	occupy(t)
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// startOccupier starts TestOccupy and waits until the ports are taken.
func startOccupier(t *testing.T) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestOccupy$")
	cmd.Env = append(os.Environ(), "VMBRIDGE_TEST_OCCUPY=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
}

// TestFindHidden: an ordinary user learns whose the socket is, not the process
// (B1).
func TestFindHidden(t *testing.T) {
	if !isolate.InNetnsAsUser(t, func() { startOccupier(t) }) {
		return
	}
	owners, err := portowner.Find(context.Background(), asked)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range asked {
		if got, want := owners[i].String(), "a process of uid 0 (root), hidden by the system"; got != want {
			t.Errorf("%v: %q, want %q", p, got, want)
		}
	}
}

func TestOwnerString(t *testing.T) {
	for _, c := range []struct {
		owner portowner.Owner
		want  string
	}{
		{portowner.Owner{Process: "nginx", PID: 7}, "nginx (pid 7)"},
		{portowner.Owner{PID: 7}, "pid 7"},
		{portowner.Owner{Hidden: true, User: "uid 0 (root)"}, "a process of uid 0 (root), hidden by the system"},
		{portowner.Owner{Hidden: true}, "a process hidden by the system"},
		{portowner.Owner{User: "uid 5"}, "a process of uid 5"},
		{portowner.Owner{}, "an unknown process"},
	} {
		if got := c.owner.String(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.owner, got, c.want)
		}
	}
}
