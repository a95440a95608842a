package watch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
)

const (
	deadline = 10 * time.Second // for a wake that must come; the machine may be busy
	silence  = 300 * time.Millisecond
	never    = time.Hour
)

// byEvents follows paths without the clock.
func byEvents(t *testing.T, paths ...string) *Watcher {
	w := start(paths, func(err error) { t.Errorf("logged %v", err) }, newSystem, never)
	t.Cleanup(func() { w.Close() })
	return w
}

// byClock follows paths without events.
func byClock(t *testing.T, paths ...string) *Watcher {
	w := start(paths, func(error) {}, exhausted, 10*time.Millisecond)
	t.Cleanup(func() { w.Close() })
	return w
}

func exhausted() (notifier, error) { return nil, errors.New("too many open files") }

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quietly(t *testing.T, w *Watcher, what string) {
	t.Helper()
	select {
	case <-w.Changed():
		t.Errorf("%s woke the reader", what)
	case <-time.After(silence):
	}
}

// Each way to change a file is seen, by events alone and by the clock alone.
func TestEveryChangeWakes(t *testing.T) {
	for _, way := range ways {
		for kind, follow := range map[string]func(*testing.T, ...string) *Watcher{"events": byEvents, "clock": byClock} {
			t.Run(way.name+"/"+kind, func(t *testing.T) {
				dir := t.TempDir()
				way.setup(t, dir)
				w := follow(t, filepath.Join(dir, way.file))
				for i, step := range way.steps {
					step(t, dir)
					wait.For(t, deadline, "a wake of step "+strconv.Itoa(i), w.Changed())
					settle(t, w)
				}
			})
		}
	}
}

// settle waits until the watcher knows how things are: a step of several changes
// may have woken before the last.
func settle(t *testing.T, w *Watcher) {
	t.Helper()
	for {
		select {
		case <-w.Changed():
		case <-time.After(5 * gather):
			return
		}
	}
}

// A change is seen within 100 ms, and so is the next one to a file of the same
// size.
func TestWakesWithin100Milliseconds(t *testing.T) {
	dir := t.TempDir()
	plain(t, dir)
	w := byEvents(t, dir+"/f")
	var took []time.Duration
	for range 21 {
		begin := time.Now()
		replaced("f")(t, dir)
		wait.For(t, deadline, "a wake", w.Changed())
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	t.Logf("a replaced file woke after %s (median), %s (worst)", took[10], took[20])
	if took[10] > 100*time.Millisecond {
		t.Errorf("half of the wakes took longer than %s", took[10])
	}
}

// What does not change the files, nor who may replace them, wakes nobody, whatever else happens around.
func TestNoFalseWakes(t *testing.T) {
	dir := t.TempDir()
	in("a")(t, dir)
	check(t, os.Symlink("a/f", dir+"/link"))
	w := byEvents(t, dir+"/link", dir+"/a/f", dir+"/missing/f")
	for i := range 200 {
		name := dir + "/a/sibling" + strconv.Itoa(i%7)
		write(t, name, strconv.Itoa(i))
		check(t, os.Rename(name, name+".old"))
		check(t, os.Chmod(name+".old", 0o644))
	}
	check(t, os.Mkdir(dir+"/other", 0o700))
	check(t, os.RemoveAll(dir+"/other"))
	if _, err := os.ReadFile(dir + "/link"); err != nil {
		t.Fatal(err)
	}
	w.SetPaths([]string{dir + "/link", dir + "/a/f", dir + "/missing/f"})
	quietly(t, w, "what happened to other files")
	check(t, os.Mkdir(dir+"/missing", 0o700))
	write(t, dir+"/missing/f", "now")
	wait.For(t, deadline, "a wake after all that", w.Changed())
}

// A burst is one wake: the reader is not kept busy.
func TestBurstIsOneWake(t *testing.T) {
	dir := t.TempDir()
	w := byEvents(t, dir+"/f")
	wakes, end := 0, time.Now().Add(500*time.Millisecond)
	tick := time.NewTicker(2 * time.Millisecond) // hundreds in a second
	defer tick.Stop()
	changes := 0
	for ; time.Now().Before(end); <-tick.C {
		changes++
		write(t, dir+"/f", strconv.Itoa(changes))
		select {
		case <-w.Changed():
			wakes++
		default:
		}
	}
	t.Logf("%d changes in 500 ms woke %d times", changes, wakes)
	if most := int(500*time.Millisecond/gather) + 2; wakes > most || wakes < 2 {
		t.Errorf("%d wakes, want 2 to %d", wakes, most)
	}
	// And the last of them is not lost.
	settle(t, w)
	write(t, dir+"/f", "the last")
	wait.For(t, deadline, "a wake", w.Changed())
}

// A write after the reader has looked wakes again, whatever the clock of the
// file system says about both.
func TestWriteAfterTheReaderLookedWakesAgain(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/f"
	write(t, path, "00000")
	w := byEvents(t, path)
	for i := range 20 {
		text := []byte{'0', '0', '0', byte('0' + i/10), byte('0' + i%10)}
		write(t, path, string(text))
		stamp := time.Now().Truncate(time.Second) // a very coarse clock
		check(t, os.Chtimes(path, stamp, stamp))
		wait.For(t, deadline, "a wake", w.Changed())
		for {
			got, err := os.ReadFile(path)
			check(t, err)
			if string(got) == string(text) {
				break
			}
			wait.For(t, deadline, "one more wake", w.Changed())
		}
		settle(t, w)
	}
}

func TestSetPathsFollowsOthers(t *testing.T) {
	dir := t.TempDir()
	in("a")(t, dir)
	in("b")(t, dir)
	w := byEvents(t, dir+"/a/f")
	w.SetPaths([]string{dir + "/b/f"})
	quietly(t, w, "SetPaths")
	replaced("a/f")(t, dir)
	quietly(t, w, "a file that is followed no more")
	replaced("b/f")(t, dir)
	wait.For(t, deadline, "a wake by the new file", w.Changed())
}

// A watched directory can be removed and renamed.
func TestDirectoriesStayFree(t *testing.T) {
	dir := t.TempDir()
	in("a")(t, dir)
	w := byEvents(t, dir+"/a/f")
	check(t, os.Rename(dir+"/a", dir+"/b"))
	wait.For(t, deadline, "a wake", w.Changed())
	check(t, os.RemoveAll(dir+"/b"))
}

// Without events it says so once and looks each second.
func TestSaysOnceThatThereAreNoEvents(t *testing.T) {
	dir := t.TempDir()
	logged := make(chan error, 100)
	w := start([]string{dir + "/f"}, func(err error) { logged <- err }, exhausted, interval)
	defer w.Close()
	for range 2 {
		replaced("f")(t, dir)
		wait.For(t, deadline, "a wake", w.Changed())
	}
	if len(logged) != 1 {
		t.Errorf("logged %d times, want once", len(logged))
	}
}

// full is a system with no more watches.
type full struct{ notifier }

func (full) Add(string) error { return errors.New("no space left on device") }

func TestSaysOnceThatThereAreNoMoreWatches(t *testing.T) {
	dir := t.TempDir()
	logged := make(chan error, 100)
	w := start([]string{dir + "/f", dir + "/a/f"}, func(err error) { logged <- err }, func() (notifier, error) {
		n, err := newSystem()
		return full{n}, err
	}, 10*time.Millisecond)
	defer w.Close()
	for range 3 {
		replaced("f")(t, dir)
		wait.For(t, deadline, "a wake", w.Changed())
	}
	if len(logged) != 1 {
		t.Errorf("logged %d times, want once", len(logged))
	}
}

func TestCloseEndsIt(t *testing.T) {
	dir := t.TempDir()
	w := New([]string{dir + "/f"}, func(err error) { t.Error(err) })
	check(t, w.Close())
	check(t, w.Close())
	w.SetPaths([]string{dir + "/g"})
	write(t, dir+"/f", "1")
	write(t, dir+"/g", "1")
	quietly(t, w, "a closed watcher")
}
