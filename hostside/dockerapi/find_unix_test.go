//go:build unix

package dockerapi

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNotFound: each way not to answer is said in a line, and ends in time. Engines
// that do answer are in tests/acceptance.
func TestNotFound(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	dead, err := net.Listen("unix", path("dead"))
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	silent, err := net.Listen("unix", path("silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	other, err := net.Listen("unix", path("other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		for {
			c, err := other.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("SSH-2.0-\x1b[31m\r\n\nmore\n"))
			c.Close()
		}
	}()
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"unix://" + path("none"):   "there is none",
		"unix://" + path("dead"):   "nobody listens there",
		"unix://" + path("silent"): "does not answer within 3s",
		"unix://" + path("other"):  "/_ping",
		"unix://" + path("file"):   "nobody listens there",
		"tcp://127.0.0.1:1":        "127.0.0.1:1",
		"gopher://x":               "gopher",
	} {
		began := time.Now()
		_, err := Find(t.Context(), environment(dir, "linux", 0, "DOCKER_HOST="+host), "")
		none, ok := errors.AsType[*NotFoundError](err)
		if !ok || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "DOCKER_HOST ("+host+")") ||
			strings.ContainsAny(err.Error(), "\n\x1b") || len(none.Passed) != 1 {
			t.Errorf("%s: %v, want %q", host, err, want)
		}
		if took := time.Since(began); took > 2*pingTimeout {
			t.Errorf("%s took %v", host, took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Find(ctx, environment(dir, "linux", 0, "DOCKER_HOST=unix://"+path("silent")), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
