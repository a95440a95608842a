package owner

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/unixserver"
)

func TestParseStat(t *testing.T) {
	const rest = " 1 10 10 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 200"
	for text, want := range map[string]processStat{
		"42 (nginx) S" + rest:      {name: "nginx", alive: true, parent: 1, start: 123456},
		"42 (a) R (b c)) S" + rest: {name: "a) R (b c)", alive: true, parent: 1, start: 123456},
		"42 (gone) Z" + rest:       {name: "gone", parent: 1, start: 123456},
		"42 (short) S 1":           {},
		"42 nginx S":               {},
		") (":                      {},
		"":                         {},
	} {
		if got := parseStat(text); got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (nginx) S 1 10 10 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 200")
	f.Fuzz(func(t *testing.T, text string) {
		if st := parseStat(text); !strings.Contains(text, st.name) {
			t.Errorf("%q: got %+v", text, st)
		}
	})
}

// socketInode makes a listener that the test process holds.
func socketInode(t *testing.T) (uint32, *os.File) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino), f
}

func newResolver(t *testing.T, cfg Config) *Resolver {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestHolders holds that a socket is its parent's, not the child's that
// inherited it, and the child's once the parent lets go.
func TestHolders(t *testing.T) {
	r := newResolver(t, Config{})
	inode, f := socketInode(t)
	child := exec.Command("sleep", "60")
	child.ExtraFiles = []*os.File{f}
	if err := child.Start(); err != nil {
		t.Skip(err)
	}
	defer func() {
		child.Process.Kill()
		child.Wait()
	}()
	const nobodys = 4294967295
	ask := func() map[uint32]Process {
		return r.Holders(context.Background(), map[uint32]uint64{inode: 0, nobodys: 0})
	}
	self, ok := readProcess(os.Getpid())
	if !ok {
		t.Fatal("this process has no name")
	}
	if got, want := ask(), map[uint32]Process{inode: self}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	f.Close()
	if got, want := ask(), map[uint32]Process{inode: {PID: child.Process.Pid, Name: "sleep"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// A search that has no time finds what is its own process's, and no more.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	own, _ := socketInode(t)
	if got, want := r.Holders(ended, map[uint32]uint64{inode: 0, own: 0}), map[uint32]Process{own: self}; !reflect.DeepEqual(got, want) {
		t.Errorf("without time: got %v, want %v", got, want)
	}
}

// TestLauncher holds that a socket which an engine made for a proxy, and both
// hold, is the proxy's.
func TestLauncher(t *testing.T) {
	engine, proxy := Process{PID: 100000001, Name: "dockerd"}, Process{PID: 100000002, Name: "docker-proxy"}
	for _, order := range [][]Process{{engine, proxy}, {proxy, engine}} {
		h := newHolders(map[uint32]bool{7: true})
		for _, p := range order {
			h.claim(7, p)
		}
		if h.found[7] != proxy || h.left != 0 {
			t.Errorf("%v: got %v with %d left, want the proxy", order, h.found[7], h.left)
		}
	}
	h := newHolders(map[uint32]bool{7: true})
	if h.claim(7, engine); h.found[7] != engine || h.left != 1 {
		t.Errorf("got %v with %d left, want the engine, and a search that goes on", h.found[7], h.left)
	}
}

func TestProcess(t *testing.T) {
	r := newResolver(t, Config{})
	if p, ok := r.Process(os.Getpid()); !ok || p.Name == "" || !r.InNetns(os.Getpid()) || r.Foreign(os.Getpid()) {
		t.Errorf("this process: %+v, %v, in the namespace: %v", p, ok, r.InNetns(os.Getpid()))
	}
	child := exec.Command("sleep", "60")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := child.Start(); err != nil {
		t.Skip("no network namespace:", err)
	}
	pid := child.Process.Pid
	if r.InNetns(pid) || !r.Foreign(pid) {
		t.Error("a process of another namespace counts as one of ours")
	}
	child.Process.Kill()
	child.Wait()
	r.Begin()
	if _, ok := r.Process(pid); ok || r.InNetns(pid) || r.Foreign(pid) {
		t.Error("a process that is gone counts as living")
	}
}

// TestCgroup holds that a cgroup's id, which is its inode, leads to the container
// and the processes in it.
func TestCgroup(t *testing.T) {
	r := newResolver(t, Config{})
	if r.cgroups.root == nil {
		t.Skip("no cgroup2")
	}
	root, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", r.cgroups.root.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	parent := filepath.Join(root, fmt.Sprintf("vmbridge-test-%d", os.Getpid()))
	dir := filepath.Join(parent, idA)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skip("no cgroup can be made:", err)
	}
	defer os.Remove(parent)
	defer os.Remove(dir)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	member := exec.Command("sleep", "60")
	if err := member.Start(); err != nil {
		t.Skip(err)
	}
	defer func() {
		member.Process.Kill()
		member.Wait()
	}()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, member.Process.Pid), 0); err != nil {
		t.Skip("no process can be moved:", err)
	}
	for range 2 { // the second time from memory
		if c := r.Container(st.Ino, 0); c != (Container{ID: idA}) {
			t.Errorf("got %+v, want container %s", c, idA)
		}
	}
	if pids := r.cgroups.processes(st.Ino); len(pids) != 1 || pids[0] != member.Process.Pid {
		t.Errorf("got processes %v, want %d", pids, member.Process.Pid)
	}
	// By process alone, as where engines use version 1.
	if c := r.Container(0, member.Process.Pid); c.ID != idA {
		t.Errorf("by process: got %+v, want container %s", c, idA)
	}
	if c := r.Container(1<<60, os.Getpid()); c.ID != "" {
		t.Errorf("a cgroup that does not exist is in container %+v", c)
	}
}

// serveEngine is an engine's API with one container.
func serveEngine(t *testing.T, id, name, image string) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != id {
			http.NotFound(w, r)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"Id": id, "Name": name, "Config": map[string]any{"Image": image}})
	})
	return unixserver.StartHTTP(t, mux)
}

// TestNames holds that the name of a container follows from the engine that
// knows it.
func TestNames(t *testing.T) {
	other := serveEngine(t, idB, "/other", "other:1")
	socket := serveEngine(t, idA, "/web", "nginx:1.27")
	n := newNames([]string{filepath.Join(t.TempDir(), "none.sock"), other, socket})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.run(ctx) })
	defer running.Wait()
	defer cancel()
	if c := n.get(idA); c != (Container{ID: idA}) {
		t.Errorf("at first: got %+v, want the id", c)
	}
	select {
	case <-n.updates:
	case <-time.After(10 * time.Second):
		t.Fatal("no name within 10 s")
	}
	if c, want := n.get(idA), (Container{ID: idA, Name: "web", Image: "nginx:1.27"}); c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func TestFiles(t *testing.T) {
	docker := t.TempDir()
	write(t, filepath.Join(docker, "containers", idA, "config.v2.json"), `{"ID":"x","Name":"/db","Config":{"Image":"postgres"}}`)
	if c, ok := dockerFile(docker, idA); !ok || c != (Container{idA, "db", "postgres"}) {
		t.Errorf("docker: got %+v, %v", c, ok)
	}
	if c, ok := dockerFile(docker, idB); ok {
		t.Errorf("docker: got %+v for a container that is not there", c)
	}
	podman := t.TempDir()
	write(t, filepath.Join(podman, "overlay-containers", "containers.json"),
		`[{"id":"`+idB+`","names":["x"]},{"id":"`+idA+`","names":["cache"],"metadata":"{\"image-name\":\"redis:7\"}"}]`)
	if c, ok := podmanFile(podman, idA); !ok || c != (Container{idA, "cache", "redis:7"}) {
		t.Errorf("podman: got %+v, %v", c, ok)
	}
	if c, ok := podmanFile(podman, idB); !ok || c != (Container{ID: idB, Name: "x"}) {
		t.Errorf("podman: got %+v, %v", c, ok)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
