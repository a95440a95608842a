package product

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vmbridge/vmbridge/tests/isolate"
)

// startHostAgent starts a program whose file has the name, with the arguments of
// Lima's forwarder; it waits for its input until the test ends.
func startHostAgent(t testing.TB, name, instance string) int {
	t.Helper()
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-test.run=^TestWait$", "hostagent", "--pidfile", "/x/"+instance+"/ha.pid", instance)
	cmd.Env = append(os.Environ(), "VMBRIDGE_TEST_WAIT=1")
	in, err := cmd.StdinPipe()
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
	return cmd.Process.Pid
}

// TestWait is the process of startHostAgent.
func TestWait(t *testing.T) {
	if os.Getenv("VMBRIDGE_TEST_WAIT") == "" {
		t.Skip("part of TestSystem")
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// TestSystem: real processes, of which those in another network namespace do not
// count.
func TestSystem(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	s := system{t.Context()}
	lima, another := startHostAgent(t, "limactl", "dev"), startHostAgent(t, "another", "x")
	want := VM{Product: Lima, Name: "dev"}
	if vm, ok := identify(s.process(lima)); vm != want || !ok {
		t.Errorf("%+v %v", vm, ok)
	}
	if vm, ok := identify(s.process(another)); ok {
		t.Errorf("a program of another name is the forwarder of %v", vm)
	}
	if vms := s.forwarders(); !slices.Equal(vms, []VM{want}) {
		t.Errorf("there run %v", vms)
	}
	for _, c := range []struct {
		link    VM
		carried bool
	}{{want, true}, {VM{}, true}, {VM{Product: Lima, Name: "x"}, false}} {
		v := Judge(t.Context(), map[string]VM{"vm": c.link}, []Held{{Link: "vm", PID: lima}})[0]
		if v.Carried != c.carried || v.By != want {
			t.Errorf("link %+v: %+v", c.link, v)
		}
	}
	if vm, ok := identify(s.process(1 << 22)); ok { // beyond the kernel's last pid
		t.Errorf("no process is %v", vm)
	}
}

// BenchmarkJudge is the price of 200 ports that one forwarder holds, for a link that
// does not say where it leads.
func BenchmarkJudge(b *testing.B) {
	pid := startHostAgent(b, "limactl", "dev")
	held := slices.Repeat([]Held{{Link: "vm", PID: pid}}, 200)
	for b.Loop() {
		if v := Judge(b.Context(), map[string]VM{"vm": {}}, held)[0]; !v.Known {
			b.Fatalf("%+v", v)
		}
	}
}
