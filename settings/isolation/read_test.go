package isolation

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// one is what the files say, when they make exactly one finding.
func one(t *testing.T, l Locations) Finding {
	t.Helper()
	h := l.Read()
	if len(h.Findings) != 1 {
		t.Fatalf("findings %v", h.Findings)
	}
	return h.Findings[0]
}

func TestNothingInstalled(t *testing.T) {
	l := lay(t, "absent", "absent", "absent")
	v := Judge(Setting{}, l.Read(), nil)
	if v.State != Unknown || len(v.Findings) != 0 || len(v.Warnings) != 0 {
		t.Errorf("got %+v", v)
	}
	// A file where a directory should be means the same.
	write(t, l.Admin, "{}")
	l = scenario(l.Admin)
	if h := l.Read(); len(h.Findings) != 0 {
		t.Errorf("below a file: %+v", h.Findings)
	}
}

// G2: what cannot be used as a file is unknown, with the reason.
func TestFilesThatAreNone(t *testing.T) {
	for _, c := range []struct {
		name, want string
		lay        func(t *testing.T, path string)
	}{
		{"directory", "cannot be read: it is a directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}},
		{"too large", "cannot be read: larger than 4 MiB", func(t *testing.T, path string) {
			write(t, path, `{"EnhancedContainerIsolation": true, "x": "`+strings.Repeat("x", maxFile)+`"}`)
		}},
		{"empty", "cannot be understood: it is empty: it ends too early", func(t *testing.T, path string) { write(t, path, "") }},
		{"half", "cannot be understood: it ends too early", func(t *testing.T, path string) {
			write(t, path, `{"EnhancedContainerIsolation": true`)
		}},
		{"another format", "cannot be understood: it is not JSON: invalid character", func(t *testing.T, path string) { write(t, path, "a: b\n") }},
		{"another value", "cannot be understood: it is not a JSON object", func(t *testing.T, path string) { write(t, path, "true") }},
		{"deep", "cannot be understood: it is not JSON", func(t *testing.T, path string) {
			write(t, path, `{"x": `+strings.Repeat("[", 1<<20))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lay(t, "absent", "absent", "absent")
			c.lay(t, l.Users[0].Store)
			if f := one(t, l); f.State != Unknown || !strings.HasPrefix(f.What, c.want) || f.Where != l.Users[0].Store || f.Remedy == "" {
				t.Errorf("got %v, want %s", f, c.want)
			}
		})
	}
	t.Run("as large as it may be", func(t *testing.T) {
		l := lay(t, "absent", "absent", "absent")
		const head, tail = `{"EnhancedContainerIsolation": true, "x": "`, `"}`
		write(t, l.Users[0].Store, head+strings.Repeat("x", maxFile-len(head)-len(tail))+tail)
		if f := one(t, l); f.State != On {
			t.Errorf("got %.200v", f)
		}
	})
}

// G2: while a writer that does not write atomically is at it, no read says off
// or finds the file strange, and once it is done the reader sees it.
func TestHalfWritten(t *testing.T) {
	l := lay(t, "absent", "on", "absent")
	path := l.Users[0].Store
	const text = `{"AutoStart": true, "EnhancedContainerIsolation": true}`
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			f, err := os.Create(path)
			if err != nil {
				t.Error(err)
				return
			}
			for _, part := range []string{text[:1], text[1:30], text[30:]} {
				if _, err := f.WriteString(part); err != nil {
					t.Error(err)
				}
			}
			f.Close()
		}
	})
	on := 0
	for range 200 {
		switch f := one(t, l); {
		case f.State == On:
			on++
		case f.State != Unknown || !strings.Contains(f.What, errCutOff.Error()):
			t.Errorf("in between: %v", f)
		}
	}
	close(stop)
	writer.Wait()
	if f := one(t, l); f.State != On {
		t.Errorf("in the end: %v", f)
	}
	t.Logf("%d of 200 reads saw the whole file", on)
}

// G2: a file that comes and goes is seen or not, and never half.
func TestVanishing(t *testing.T) {
	l := lay(t, "absent", "on", "absent")
	path, aside := l.Users[0].Store, filepath.Join(filepath.Dir(l.Users[0].Store), "aside")
	stop := make(chan struct{})
	var mover sync.WaitGroup
	mover.Go(func() {
		for from, to := path, aside; ; from, to = to, from {
			select {
			case <-stop:
				return
			default:
			}
			if err := os.Rename(from, to); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 2000 {
		if h := l.Read(); len(h.Findings) > 1 || len(h.Findings) == 1 && h.Findings[0].State != On {
			t.Errorf("got %v", h.Findings)
		}
	}
	close(stop)
	mover.Wait()
}
