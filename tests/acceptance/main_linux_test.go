package acceptance

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vmbridge-acceptance")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Every user may run them.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	raiseLimits()
	built.dir = dir
	return m.Run()
}

// raiseLimits lets this program and its children have a descriptor for each of
// 20,000 ports (I4). Without root it stays as it is.
func raiseLimits() {
	const files = 1 << 17
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil && limit.Max < files {
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: files})
	}
}

// built is the programs, each made when it is first used.
var built programs

type programs struct {
	dir                 string
	plain, race, helper flavour
	// carrying have a daemon that carries the agent.
	carryingPlain, carryingRace flavour
}

// flavour is a directory of programs that were built in one way.
type flavour struct {
	once sync.Once
	dir  string
	err  error
}

// find returns the directory of vmbridge and vmbridge-guest. With race they are
// built like this program: with the race detector if it has it.
func (p *programs) find(t testing.TB, race bool) string {
	t.Helper()
	f, name := &p.plain, "plain"
	if race && raceEnabled {
		f, name = &p.race, "race"
	}
	return f.find(t, filepath.Join(p.dir, name), f == &p.race, "./cmd/vmbridge", "./cmd/vmbridge-guest")
}

// server returns the program that runs in containers.
func (p *programs) server(t testing.TB) string {
	t.Helper()
	return filepath.Join(p.helpers(t), "server")
}

// helpers returns the directory of the programs that engines use.
func (p *programs) helpers(t testing.TB) string {
	t.Helper()
	return p.helper.find(t, filepath.Join(p.dir, "helper"), false, "./tests/acceptance/server", "./tests/acceptance/runtime")
}

// carrying returns the directory of a vmbridge that carries the agent for this machine,
// as make build makes it.
func (p *programs) carrying(t testing.TB, race bool) string {
	t.Helper()
	f, name := &p.carryingPlain, "carrying"
	if race && raceEnabled {
		f, name = &p.carryingRace, "carrying-race"
	}
	// Static, as it is alone in its container.
	agent := filepath.Join(p.find(t, false), "vmbridge-guest")
	dir := filepath.Join(p.dir, name)
	f.once.Do(func() {
		f.dir = dir
		var overlay string
		if overlay, f.err = embed(dir, agent); f.err == nil {
			f.err = build(dir, f == &p.carryingRace, []string{"-overlay", overlay, "./cmd/vmbridge"})
		}
	})
	if f.err != nil {
		t.Fatal(f.err)
	}
	return f.dir
}

// embed writes a file for go build -overlay that has the daemon carry an agent.
func embed(dir, agent string) (overlay string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	binary, err := os.ReadFile(agent)
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(binary); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	name := "vmbridge-guest-" + runtime.GOARCH + ".gz"
	carried := filepath.Join(dir, name)
	if err := os.WriteFile(carried, packed.Bytes(), 0o644); err != nil {
		return "", err
	}
	place, err := filepath.Abs(filepath.Join("..", "..", "hostside", "agentbin", "agents", name))
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{place: carried}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

func (f *flavour) find(t testing.TB, dir string, race bool, packages ...string) string {
	t.Helper()
	f.once.Do(func() { f.dir, f.err = dir, build(dir, race, packages) })
	if f.err != nil {
		t.Fatal(f.err)
	}
	return f.dir
}

func build(dir string, race bool, packages []string) error {
	args := []string{"build", "-buildvcs=false", "-o", dir + "/"}
	cgo := "CGO_ENABLED=0"
	if race {
		args = append(args, "-race")
		cgo = "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}
