package settings

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// writerVariable makes the test program a writer: PATH, ROUNDS (0 for without
// end), KEY and the VALUES that it sets in turn, on lines of their own.
const writerVariable = "TEST_SETTINGS_WRITER"

func TestMain(m *testing.M) {
	if spec := os.Getenv(writerVariable); spec != "" {
		go func() { // whoever started the writer holds its standard input
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(2)
		}()
		if err := writer(strings.Split(spec, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writer sets a key that only it sets, and looks each time whether it has stayed.
// It says so on standard output when it has set the first.
func writer(spec []string) error {
	var rounds int
	if _, err := fmt.Sscan(spec[1], &rounds); err != nil {
		return err
	}
	path, key, values := spec[0], spec[2], spec[3:]
	s, err := Open(Sources{Path: path})
	if err != nil {
		return err
	}
	for i := 0; rounds == 0 || i < rounds; i++ {
		want := values[i%len(values)]
		if err := s.Set(key, want); err != nil {
			return err
		}
		if i == 0 {
			fmt.Println("set")
		}
		e, _ := s.Reload(true)
		for _, v := range e.Values {
			if v.Key == key && v.Value != want {
				return fmt.Errorf("%s: %s was lost: it is %s", key, want, v.Value)
			}
		}
	}
	return nil
}

// startWriter gives the process, and a reader of what it says.
func startWriter(t *testing.T, path string, rounds int, key string, values ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s\n%d\n%s\n%s", writerVariable, path, rounds, key, strings.Join(values, "\n")))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

// The file is whole after kill -9 at whatever moment: what was there before the
// change or after it, comments included, and no temporary files pile up.
func TestKilledWriters(t *testing.T) {
	rounds := 120
	if testing.Short() {
		rounds = 10
	}
	path := write(t, commented)
	values := []string{"[]", "[1-9, 80/tcp]", "[1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39]"}
	var possible []string
	for _, v := range values {
		possible = append(possible, strings.Replace(commented, "deny: []", "deny: "+v, 1))
	}
	seen := make(map[string]int)
	var amid int // of a write
	for range rounds {
		cmd, out := startWriter(t, path, 0, "ports.deny", values...)
		if line, err := out.ReadString('\n'); line != "set\n" {
			t.Fatalf("the writer said %q, %v", line, err)
		}
		// The moment is what the test is about, so there is no event to wait for.
		<-time.After(rand.N(15 * time.Millisecond))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err == nil {
			t.Fatal("the writer ended by itself")
		}
		got := read(t, path)
		i := slices.Index(possible, got)
		if i < 0 {
			t.Fatalf("the file holds:\n%s", got)
		}
		seen[values[i]]++
		if _, err := Open(Sources{Path: path}); err != nil {
			t.Fatal(err)
		}
		// The file, the lock, and what the last one left, which the next takes away.
		names := entries(t, path)
		if len(names) > 3 {
			t.Fatalf("the directory holds %q", names)
		}
		if len(names) == 3 {
			amid++
		}
	}
	t.Logf("%d of %d were killed between making the new file and putting it in place", amid, rounds)
	if amid == 0 && rounds > 10 {
		t.Error("none was killed amid a write")
	}
	if len(seen) < 2 && rounds > 10 {
		t.Errorf("the writers were always killed at the same value: %v", seen)
	}
	if err := open(t, Sources{Path: path}).Set("exposure", "mirror"); err != nil {
		t.Fatal(err)
	}
	if names := entries(t, path); len(names) > 2 {
		t.Errorf("the directory holds %q", names)
	}
}

func entries(t *testing.T, path string) []string {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// Ten processes that write at once lose nothing of each other's.
func TestTenWriters(t *testing.T) {
	path := write(t, commented)
	writers := map[string][]string{
		"host_networking.enabled": {"true", "false"},
		"exposure":                {"mirror", "loopback"},
		"localhost_twin":          {"true", "false"},
		"ports.ignore":            {"[1]", "[2, 3, 4]"},
		"ports.deny":              {"[5]", "[6, 7]"},
		"ports.rules":             {"[{port: 1, action: ignore}]", "[{port: 2, host_port: 3}, {process: a, action: forward}]"},
		"host_reach.allow":        {"[]", "all"},
		"links":                   {"[{name: a, url: 'unix:///a'}]", "[]"},
		"limits.flows":            {"1", "22222"},
		"limits.memory":           {"1GiB", "17MiB"},
	}
	var all []*exec.Cmd
	for key, values := range writers {
		cmd, _ := startWriter(t, path, 20, key, values...)
		all = append(all, cmd)
	}
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Errorf("a writer: %v", err)
		}
	}
	e := open(t, Sources{Path: path}).Effective()
	for key, values := range writers {
		if v := e.Value(key); v.Value != values[1] || v.Origin != OriginFile {
			t.Errorf("%+v, want %s", v, values[1])
		}
	}
	for _, comment := range []string{"# My settings.", "# The toggle.", "# for now", "# Nothing is denied yet.", "# the end"} {
		if !strings.Contains(read(t, path), comment) {
			t.Errorf("%s is gone", comment)
		}
	}
	if names := entries(t, path); len(names) > 2 {
		t.Errorf("the directory holds %q", names)
	}
}
