package watch

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// followed makes this program a watcher of a file: it prints "ready", waits for
// the end of its input, and prints the CPU time that it has used in between.
const followed = "VMBRIDGE_TEST_WATCHED"

func TestMain(m *testing.M) {
	if path := os.Getenv(followed); path != "" {
		w := New([]string{path}, func(err error) { fmt.Fprintln(os.Stderr, err) })
		before := used()
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		fmt.Println(int64(used() - before))
		w.Close()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cost runs a watcher for a while, and gives the share of one processor that it
// took. The rest of the machine does not matter to that.
func cost(t *testing.T, path string, during func(until time.Time)) float64 {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), followed+"="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	defer cmd.Wait()
	defer in.Close()
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	during(begin.Add(2 * time.Second))
	took := time.Since(begin)
	in.Close()
	said, err := io.ReadAll(out)
	check(t, err)
	ns, err := strconv.ParseInt(strings.TrimSpace(string(said)), 10, 64)
	check(t, err)
	return float64(ns) / float64(took)
}

// To follow a file costs nothing to speak of, also next to a busy one.
func TestCostsNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "1")
	idle := cost(t, path, func(until time.Time) { <-time.After(time.Until(until)) })
	changes := 0
	busy := cost(t, path, func(until time.Time) {
		f, err := os.Create(filepath.Join(dir, "log"))
		check(t, err)
		defer f.Close()
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for ; time.Now().Before(until); <-tick.C {
			fmt.Fprintln(f, changes)
			changes++
		}
	})
	churned := 0
	churn := cost(t, path, func(until time.Time) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ; time.Now().Before(until); <-tick.C {
			name := filepath.Join(dir, "x"+strconv.Itoa(churned%10))
			write(t, name, "x")
			check(t, os.Remove(name))
			churned++
		}
	})
	t.Logf("CPU: idle %.2f%%, beside a log of %d lines %.2f%%, beside %d files made and removed %.2f%%",
		100*idle, changes, 100*busy, churned, 100*churn)
	const bound = 0.05 // the race detector's share in it
	if idle > bound/5 || busy > bound || churn > 2*bound {
		t.Errorf("more than to be expected")
	}
}
