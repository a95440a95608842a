package leave

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// roleName is the variable that makes this program one of the processes of a test.
const roleName = "VMBRIDGE_TEST_LEAVE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleName); role {
	case "":
		os.Exit(m.Run())
	case "leave":
		// In a container: the file is the guest's.
		_, err := os.Stat(os.Args[1])
		fmt.Printf("inside %d %v\n", os.Getpid(), err == nil)
		os.Setenv(roleName, "left")
		err = Container([]string{"agent", os.Args[1]})
		fmt.Println("stays:", err, errors.Is(err, ErrNotContainer))
		os.Exit(1)
	case "left":
		_, err := os.Stat(os.Args[1])
		Name("agent")
		comm, _ := os.ReadFile("/proc/self/comm")
		fmt.Printf("outside %d %v %s %s", os.Getpid(), err == nil, os.Args[0], comm)
	}
}

// run runs a script as the guest's first process, with this program as $0 and the path of a
// file as $1, which is there when the script has made it.
func run(t *testing.T, script string) (string, error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-ec", script, os.Args[0], filepath.Join(t.TempDir(), "file"))
	cmd.Env = append(os.Environ(), roleName+"=leave")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestContainer: a process whose parent has another mount namespace goes on there, as
// the same process, with what is mounted there.
func TestContainer(t *testing.T) {
	out, err := run(t, `dir=${1%/*}; mount -t tmpfs none $dir; touch $1
		unshare --mount sh -ec 'umount ${1%/*}; exec "$0" "$1"' "$0" "$1"; true`)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var before, after int
	if _, err := fmt.Sscanf(out, "inside %d false\noutside %d true agent agent\n", &before, &after); err != nil || before != after {
		t.Errorf("%q: %v", out, err)
	}
}

// TestRoot: the root directory of the parent counts, which need not be that of its mount
// namespace.
func TestRoot(t *testing.T) {
	out, err := run(t, `dir=${1%/*}; mount --rbind / $dir; mount -t tmpfs none $dir/srv; touch $dir/srv/file
		chroot $dir sh -ec 'unshare --mount sh -ec "umount /srv; exec \"\$0\" /srv/file" "$0"; true' "$0"`)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var before, after int
	if _, err := fmt.Sscanf(out, "inside %d false\noutside %d true agent agent\n", &before, &after); err != nil || before != after {
		t.Errorf("%q: %v", out, err)
	}
}

// TestStays: a container with processes of its own, or without the right to leave, is said, and
// the process goes on where it is.
func TestStays(t *testing.T) {
	out, err := run(t, `unshare --pid --fork --mount-proc "$0" "$1" || true`)
	if err != nil || !strings.Contains(out, "stays: "+ErrNotContainer.Error()+" true") {
		t.Errorf("with its own processes: %v, %q", err, out)
	}
	out, err = run(t, `unshare --mount setpriv --bounding-set -sys_admin --inh-caps -sys_admin "$0" "$1" || true`)
	if err != nil || !strings.Contains(out, "stays: mount namespace of process") || !strings.Contains(out, "operation not permitted false") {
		t.Errorf("without the right: %v, %q", err, out)
	}
}

func TestNetwork(t *testing.T) {
	a, err := Network()
	b, err2 := Network()
	if err != nil || err2 != nil || a != b || strings.Count(a, "/") != 1 || !strings.Contains(a, "/net:[") {
		t.Errorf("%q, %q, %v, %v", a, b, err, err2)
	}
	out, err := exec.Command("unshare", "--net", "readlink", "/proc/self/ns/net").CombinedOutput()
	if err != nil {
		t.Skipf("no network namespaces here: %v: %s", err, out)
	}
	if _, own, _ := strings.Cut(a, "/"); own == strings.TrimSpace(string(out)) {
		t.Errorf("another namespace is %q, too", own)
	}
}
