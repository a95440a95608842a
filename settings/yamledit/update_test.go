package yamledit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// writer makes this program one that writes a file: "add NAME COUNT" adds that
// many keys, "forever NAME" sets one again and again. It says when it begins.
const writerOf = "VMBRIDGE_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerOf); path != "" {
		if err := write(path, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func write(path string, args []string) error {
	fmt.Println("ready")
	set := func(key string, value int) error {
		return Update(path, func(old []byte) ([]byte, error) {
			n := &yaml.Node{}
			if err := n.Encode(value); err != nil {
				return nil, err
			}
			return Set(old, []string{"keys", key}, n)
		})
	}
	if args[0] == "forever" {
		for i := 0; ; i++ {
			if err := set(args[1], i); err != nil {
				return err
			}
		}
	}
	count, err := strconv.Atoi(args[2])
	for i := 0; err == nil && i < count; i++ {
		err = set(args[1]+strconv.Itoa(i), i)
	}
	return err
}

func startWriter(t *testing.T, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), writerOf+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Error(err)
	}
	return cmd
}

func replaceBy(text string) func([]byte) ([]byte, error) {
	return func([]byte) ([]byte, error) { return []byte(text), nil }
}

func fileWith(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func textOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// leftovers lists what is in a file's directory besides it and its lock.
func leftovers(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); name != filepath.Base(path) && name != filepath.Base(path)+".lock" {
			names = append(names, name)
		}
	}
	return names
}

func TestUpdateMakesTheFileAndItsDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deeper", "settings.yaml")
	err := Update(path, func(old []byte) ([]byte, error) {
		if old != nil {
			t.Errorf("given %q, want nil", old)
		}
		return []byte("a: 1\n"), nil
	})
	if err != nil || textOf(t, path) != "a: 1\n" {
		t.Fatal(err)
	}
	file, err1 := os.Stat(path)
	dir, err2 := os.Stat(filepath.Dir(path))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if filepath.Separator == '/' && (file.Mode().Perm() != 0o600 || dir.Mode().Perm() != 0o700) {
		t.Errorf("modes %v and %v", file.Mode(), dir.Mode())
	}
}

func TestUpdateLeavesTheFileAlone(t *testing.T) {
	path := fileWith(t, "a: 1\n")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	failure := errors.New("no")
	if err := Update(path, func([]byte) ([]byte, error) { return nil, failure }); err != failure {
		t.Errorf("got %v, want the change's own error", err)
	}
	if err := Update(path, replaceBy("a: 1\n")); err != nil {
		t.Error(err)
	}
	if err := Update(path, replaceBy(strings.Repeat("#", maxSize+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) || textOf(t, path) != "a: 1\n" {
		t.Errorf("the file is another one, %v", err)
	}
	if left := leftovers(t, path); left != nil {
		t.Errorf("left behind %q", left)
	}
}

func TestUpdateRefusesWhatItCannotRead(t *testing.T) {
	never := func([]byte) ([]byte, error) { t.Error("asked for a change"); return nil, nil }
	if err := Update(fileWith(t, strings.Repeat("#", maxSize+1)), never); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large file: got %v", err)
	}
	if err := Update(t.TempDir(), never); err == nil {
		t.Error("a directory: no error")
	}
}

func TestUpdateFollowsLinks(t *testing.T) {
	target := fileWith(t, "a: 1\n")
	dir := t.TempDir()
	link, missing := filepath.Join(dir, "link"), filepath.Join(dir, "missing")
	if err := os.Symlink(target, link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := os.Symlink("sub/new", missing); err != nil {
		t.Fatal(err)
	}
	for path, target := range map[string]string{link: target, missing: filepath.Join(dir, "sub", "new")} {
		if err := Update(path, replaceBy("b: 2\n")); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s is no link any more, %v", path, err)
		}
		if textOf(t, target) != "b: 2\n" {
			t.Errorf("%s was not changed", target)
		}
	}
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	if err := Update(filepath.Join(dir, "loop"), replaceBy("")); err == nil {
		t.Error("a link to itself: no error")
	}
}

// An editor does not know the lock. What it has written is not written over.
func TestUpdateChangesWhatAnEditorWroteMeanwhile(t *testing.T) {
	path := fileWith(t, "a: 1\n")
	edits := 0
	err := Update(path, func(old []byte) ([]byte, error) {
		if edits < 3 {
			edits++
			if err := os.WriteFile(path, fmt.Appendf(nil, "a: %d\n", edits+1), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return append(bytes.Clone(old), "b: 1\n"...), nil
	})
	if got := textOf(t, path); err != nil || got != "a: 4\nb: 1\n" {
		t.Errorf("got %v and %q", err, got)
	}
	n := 0
	err = Update(path, func([]byte) ([]byte, error) {
		n++
		return []byte("c: 1\n"), os.WriteFile(path, fmt.Appendf(nil, "a: %d\n", 10+n), 0o600)
	})
	if !errors.Is(err, ErrBusy) || textOf(t, path) != fmt.Sprintf("a: %d\n", 10+n) {
		t.Errorf("got %v and %q, want ErrBusy and the editor's text", err, textOf(t, path))
	}
	if left := leftovers(t, path); left != nil {
		t.Errorf("left behind %q", left)
	}
}

// Ten writers at once lose nothing, and a reader sees no partial file.
func TestTenWritersLoseNothing(t *testing.T) {
	path := fileWith(t, "# mine\nkeys:\n  first: 0 # c\nlast: 1\n")
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reads := 0
	reader.Go(func() {
		for ; ; reads++ {
			select {
			case <-stop:
				return
			default:
			}
			var v struct {
				Keys map[string]int
				Last int
			}
			text, err := os.ReadFile(path)
			if err == nil {
				err = yaml.Unmarshal(text, &v)
			}
			if err != nil || v.Last != 1 || len(v.Keys) == 0 {
				t.Errorf("read %v\n%s", err, text)
				return
			}
		}
	})
	const writers, each = 10, 50
	var running []*exec.Cmd
	for i := range writers {
		running = append(running, startWriter(t, path, "add", "w"+strconv.Itoa(i)+"_", strconv.Itoa(each)))
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	reader.Wait()
	var v struct{ Keys map[string]int }
	if err := yaml.Unmarshal([]byte(textOf(t, path)), &v); err != nil {
		t.Fatal(err)
	}
	t.Logf("read %d times meanwhile", reads)
	if len(v.Keys) != 1+writers*each {
		t.Errorf("%d keys, want %d", len(v.Keys), 1+writers*each)
	}
	if left := leftovers(t, path); left != nil {
		t.Errorf("left behind %q", left)
	}
}

// A writer killed at any instant leaves a whole file, and what it leaves beside
// it goes with the next change.
func TestKilledWritersLeaveAWholeFile(t *testing.T) {
	path := fileWith(t, "# mine\nlast: 1\n")
	const kills = 120
	littered := 0
	for i := range kills {
		cmd := startWriter(t, path, "forever", "k"+strconv.Itoa(i%3))
		// From within the first write to some writes later.
		kill := time.AfterFunc(time.Duration(i*7919%97)*50*time.Microsecond, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
		var v struct{ Last int }
		text := textOf(t, path)
		if err := yaml.Unmarshal([]byte(text), &v); err != nil || v.Last != 1 || !strings.HasPrefix(text, "# mine\n") {
			t.Fatalf("after kill %d: %v\n%s", i, err, text)
		}
		if leftovers(t, path) != nil {
			littered++
		}
	}
	t.Logf("%d of %d kills left a temporary file", littered, kills)
	if err := Update(path, func(old []byte) ([]byte, error) { return append(old, "end: 1\n"...), nil }); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, path); left != nil {
		t.Errorf("left behind %q", left)
	}
}

// One who waits for the lock for too long is told which.
func TestUpdateGivesUpOnALock(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the whole bound")
	}
	path := fileWith(t, "a: 1\n")
	unlock, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	begin := time.Now()
	err = Update(path, replaceBy("a: 2\n"))
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path+".lock") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took < lockWait || took > 2*lockWait {
		t.Errorf("gave up after %s", took)
	}
}
