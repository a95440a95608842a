package vm_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// AF_VSOCK's loopback carries the conformance tests of transport and link in the
// machine, through mdlayher/vsock and the real kernel: on most hosts of these
// tests there is no loopback, and they skip. Here they must not.
func testConformance(t *testing.T, s *system) {
	s.run("modprobe", "vsock_loopback")
	for _, c := range []struct {
		pkg, pattern string
		passes       []string
	}{
		{
			"./vmbridge/transport", "^(TestConn|TestLargeTransfer|TestRawWrite|TestVSockFilter)$/^vsock$",
			[]string{"TestConn/vsock", "TestLargeTransfer/vsock", "TestRawWrite/vsock", "TestVSockFilter"},
		},
		{"./vmbridge/link", "^TestConformance$/^vsock$", []string{"TestConformance/vsock"}},
	} {
		t.Run(filepath.Base(c.pkg), func(t *testing.T) {
			s := s.in(t)
			binary := filepath.Join(t.TempDir(), "test")
			compile := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-o", binary, c.pkg)
			compile.Dir = filepath.Join("..", "..")
			compile.Env = append(compile.Environ(), "CGO_ENABLED=0")
			if out, err := compile.CombinedOutput(); err != nil {
				t.Fatalf("go test -c: %v\n%s", err, out)
			}
			s.put(binary, "/tmp/test")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			started := time.Now()
			out, err := s.guest.Output(ctx, "sh", "-c", "cd /tmp && ./test -test.v -test.run='"+c.pattern+"' 2>&1")
			t.Logf("took %v", time.Since(started).Round(100*time.Millisecond))
			for _, name := range c.passes {
				if !strings.Contains(out, "--- PASS: "+name+" (") {
					t.Errorf("%s has not passed", name)
				}
			}
			if err != nil || strings.Contains(out, "--- SKIP") {
				t.Errorf("skipped or failed: %v", err)
			}
			if t.Failed() {
				t.Logf("it says\n%s", out)
			}
		})
	}
}
