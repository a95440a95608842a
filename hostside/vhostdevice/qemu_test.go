package vhostdevice

import (
	"strings"
	"testing"
)

func TestQEMUFlags(t *testing.T) {
	for _, test := range []struct{ goos, goarch, want string }{
		{"linux", "amd64", "-object memory-backend-memfd,id=mem0,size=SIZE,share=on -machine q35,memory-backend=mem0 " +
			"-chardev socket,id=c0,path=/run/vm.sock -device vhost-user-vsock-pci,chardev=c0"},
		{"darwin", "arm64", "-object memory-backend-shm,id=mem0,size=SIZE,share=on -machine virt,memory-backend=mem0 " +
			"-chardev socket,id=c0,path=/run/vm.sock -device vhost-user-vsock-pci,chardev=c0"},
	} {
		if got := qemuFlags(test.goos, test.goarch, "/run/vm.sock"); got != test.want {
			t.Errorf("%s/%s: %s", test.goos, test.goarch, got)
		}
	}
}

// TestQEMUFlagsQuoted: a path means the same to QEMU and to the shell.
func TestQEMUFlagsQuoted(t *testing.T) {
	for path, want := range map[string]string{
		"/run/a b/it's": `-chardev 'socket,id=c0,path=/run/a b/it'\''s' `,
		"/run/a,b":      "-chardev socket,id=c0,path=/run/a,,b ",
		"/run/$HOME":    "-chardev 'socket,id=c0,path=/run/$HOME' ",
	} {
		if got := QEMUFlags(path); !strings.Contains(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
}
