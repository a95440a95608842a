package linkkey_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// childEnv makes the test binary a process that creates a key.
const childEnv = "VMBRIDGE_LINKKEY_CREATE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		key, err := linkkey.LoadOrCreate(path)
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString(key.String())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func keyPath(t *testing.T) string {
	t.Helper()
	path, err := linkkey.Path(t.TempDir(), "default")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadOrCreate(t *testing.T) {
	path := keyPath(t)
	made, err := linkkey.LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	if made == (linkkey.Key{}) || len(made.String()) != 64 {
		t.Errorf("made %v", made)
	}
	for _, load := range []func(string) (linkkey.Key, error){linkkey.Load, linkkey.LoadOrCreate} {
		if got, err := load(path); err != nil || got != made {
			t.Errorf("read back %v, %v; want %v", got, err, made)
		}
	}
	if other := linkkey.New(); other == made {
		t.Error("two new keys are the same")
	}
	if runtime.GOOS != "windows" {
		for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
			info, err := os.Stat(name)
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, want)
			}
		}
	}
	onlyKeyIn(t, filepath.Dir(path))
}

// onlyKeyIn checks that creating has left nothing else behind.
func onlyKeyIn(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestCreatorsAgree holds H3 and G3: processes and goroutines that start at
// once all get the one key that is in the file.
func TestCreatorsAgree(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := keyPath(t)
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), childEnv+"="+path)
			out, err := cmd.Output()
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got[string(out)]++
		})
	}
	for range 16 {
		wg.Go(func() {
			key, err := linkkey.LoadOrCreate(path)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got[key.String()]++
		})
	}
	wg.Wait()
	stored, err := linkkey.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got[stored.String()] != 20 {
		t.Errorf("of 20 creators %d have the stored key; all keys: %d", got[stored.String()], len(got))
	}
	onlyKeyIn(t, filepath.Dir(path))
}

// TestKilledCreator checks that at no time there is a part of a key: creators
// are killed at arbitrary moments, and whatever is there then must be whole.
func TestKilledCreator(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		path := keyPath(t)
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan struct{})
		go func() {
			defer close(exited)
			_ = cmd.Wait() // reports the kill
		}()
		// Kill as soon as anything at all is in the directory, or too late.
		for dir, late := filepath.Dir(path), false; !late; {
			if entries, _ := os.ReadDir(dir); len(entries) > 0 {
				break
			}
			select {
			case <-exited:
				late = true
			default:
				runtime.Gosched()
			}
		}
		_ = cmd.Process.Kill() // it may just have ended
		<-exited
		if _, err := linkkey.Load(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("after a kill: %v", err)
		}
		if _, err := linkkey.LoadOrCreate(path); err != nil {
			t.Fatalf("the next start: %v", err)
		}
	}
}

// TestLoadErrors checks that each is one line with what, where and what to do.
func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	good := linkkey.New().String()
	for _, tc := range []struct {
		name, content string
		mode          fs.FileMode
		is            error
		says          string
	}{
		{"missing", "", 0, fs.ErrNotExist, "vmbridge guest key"},
		{"empty", "", 0o600, linkkey.ErrInvalid, "0 characters"},
		{"short", good[:63], 0o600, linkkey.ErrInvalid, "63 characters, want 64"},
		{"long", good + "0", 0o600, linkkey.ErrInvalid, "65 characters"},
		{"other", "x" + good[1:], 0o600, linkkey.ErrInvalid, "hexadecimal"},
		{"huge", strings.Repeat("0", 1<<20), 0o600, linkkey.ErrInvalid, "characters"},
		{"exposed", good, 0o640, linkkey.ErrExposed, "chmod 600"},
		{"writable", good, 0o602, linkkey.ErrExposed, "chmod 600"},
	} {
		path := filepath.Join(dir, tc.name)
		if tc.mode != 0 {
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
		}
		if runtime.GOOS == "windows" && errors.Is(tc.is, linkkey.ErrExposed) {
			continue
		}
		_, err := linkkey.Load(path)
		if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) || strings.Count(err.Error(), path) != 1 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", tc.name, err)
		}
		if err != nil && strings.Contains(err.Error(), good[:16]) {
			t.Errorf("%s: the error shows the key", tc.name)
		}
		if tc.mode != 0 { // what is there is not replaced
			if _, err := linkkey.LoadOrCreate(path); !errors.Is(err, tc.is) {
				t.Errorf("%s: LoadOrCreate: %v", tc.name, err)
			}
		}
	}
}

func TestPath(t *testing.T) {
	home := filepath.FromSlash("/home/me/.vmbridge")
	for name, ok := range map[string]bool{
		"default": true, "vm-1.local": true, "mit Leer": true, "ä": true,
		"": false, ".": false, "..": false, "a/b": false, `a\b`: false, "/etc/passwd": false, "c:x": false, "a\nb": false, "a\x00": false,
	} {
		path, err := linkkey.Path(home, name)
		if ok && (err != nil || path != filepath.Join(home, "keys", name)) {
			t.Errorf("%q: %q, %v", name, path, err)
		}
		if !ok && (!errors.Is(err, linkkey.ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x00")) {
			t.Errorf("%q: %q, %v", name, path, err)
		}
	}
}

// FuzzParse checks that what is accepted is 64 digits and white space, and
// that a key survives its own form.
func FuzzParse(f *testing.F) {
	key := linkkey.New()
	f.Add(key.String())
	f.Add(strings.ToUpper(key.String()))
	f.Add(" " + key.String()[:32] + "\r\n\t" + key.String()[32:] + "\n")
	f.Add("")
	f.Add("0x" + key.String()[2:])
	f.Add(strings.Repeat("\u00a0", 100) + key.String())
	f.Fuzz(func(t *testing.T, text string) {
		key, err := linkkey.Parse(text)
		if err != nil {
			if !errors.Is(err, linkkey.ErrInvalid) || key != (linkkey.Key{}) {
				t.Errorf("%v with key %v", err, key)
			}
			return
		}
		again, err := linkkey.Parse(key.String())
		if err != nil || again != key {
			t.Errorf("%v became %v, %v", key, again, err)
		}
		if digits := bytes.Join(bytes.Fields([]byte(text)), nil); !strings.EqualFold(string(digits), key.String()) {
			t.Errorf("%q was read as %v", text, key)
		}
	})
}
