package agentbin

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/fstest"
)

func packed(t *testing.T, text string) *fstest.MapFile {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &fstest.MapFile{Data: b.Bytes()}
}

func TestOpen(t *testing.T) {
	agent := strings.Repeat("agent", 100000)
	good := packed(t, agent)
	bad := packed(t, agent)
	bad.Data[len(bad.Data)/2] ^= 1
	files := fstest.MapFS{
		"agents/README.md":               {},
		"agents/vmbridge-guest-amd64.gz": good,
		"agents/vmbridge-guest-arm64.gz": bad,
	}
	r, size, err := open(files, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != agent || size != int64(len(agent)) {
		t.Errorf("%d bytes of %d, want %d, %v", len(got), size, len(agent), err)
	}
	if r, _, err = open(files, "arm64"); err == nil {
		_, err = io.ReadAll(r)
	}
	if err == nil {
		t.Error("a damaged agent is taken")
	}
	if _, _, err := open(files, "riscv64"); !errors.Is(err, ErrArchitecture) || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("got %v", err)
	}
	if _, _, err := open(fstest.MapFS{"agents/README.md": {}}, "amd64"); err != ErrNone {
		t.Errorf("got %v", err)
	}
	if _, _, err := open(fstest.MapFS{"agents/vmbridge-guest-amd64.gz": {Data: []byte("gz")}}, "amd64"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

// TestCarried: a build carries all agents, each a program for Linux, or none.
func TestCarried(t *testing.T) {
	digests := map[string]bool{}
	for _, goarch := range architectures {
		r, size, err := Open(goarch)
		if (err == ErrNone) == Carried() {
			t.Errorf("%s: %v, and carried: %v", goarch, err, Carried())
		}
		if err == ErrNone {
			if _, err := Digest(goarch); err != ErrNone {
				t.Errorf("digest: %v", err)
			}
			t.Skip(err)
		}
		if err != nil {
			t.Fatalf("%s: %v", goarch, err)
		}
		if digest, err := Digest(goarch); err != nil || len(digest) != 64 || digests[digest] {
			t.Errorf("%s: digest %q, %v", goarch, digest, err)
		} else {
			digests[digest] = true
		}
		got, err := io.ReadAll(r)
		if err != nil || int64(len(got)) != size || !bytes.HasPrefix(got, []byte("\x7fELF")) {
			t.Errorf("%s: %d bytes of %d, %v", goarch, len(got), size, err)
		}
	}
}
