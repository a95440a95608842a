package vm_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/vhostvsock"
	"github.com/vmbridge/vmbridge/tests/vm"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// Ports of tests/vm/guest.
const (
	portEcho   = 1000
	portOrders = 1001
	portNobody = 999
)

const guestCID = 42

// limit is for anything in a machine that is emulated on a busy one.
const limit = 2 * time.Minute

// bed is a device and a machine that uses it.
type bed struct {
	device  *vhostvsock.Device
	socket  string
	config  vm.Config
	machine *vm.Machine
}

// newBed boots a machine whose only device is vsock.
func newBed(t testing.TB) *bed {
	kernel := vm.FindKernel(t)
	programs := t.TempDir()
	build(t, programs, "./tests/vm/guest")
	image := vm.Image{
		Kernel:  kernel,
		Modules: []string{"virtio_pci", "vmw_vsock_virtio_transport"},
		Files:   map[string]string{"/bin/guest": filepath.Join(programs, "guest")},
		Script:  "guest",
	}
	b := &bed{socket: filepath.Join(t.TempDir(), "vsock")}
	b.config = vm.Config{Kernel: kernel, Initramfs: image.Write(t), Args: append(vm.VsockArgs(b.socket), "-nic", "none")}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	b.device, err = vhostvsock.New(l, vhostvsock.Config{CID: guestCID, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	// After the machine's own end, which its Start registers later.
	t.Cleanup(func() { b.device.Close() })
	b.boot(t)
	return b
}

func (b *bed) boot(t testing.TB) {
	b.machine = vm.Start(t, b.config)
	b.machine.WaitFor("GUEST-READY", 1)
}

func (b *bed) dial(t testing.TB, port uint32) *vhostvsock.Conn {
	t.Helper()
	c, err := b.device.Dial(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(limit))
	return c
}

func (b *bed) waitForGuest(t testing.TB) {
	t.Helper()
	wait.Until(t, limit, "a guest that answers", func() bool {
		c, err := b.device.Dial(t.Context(), portEcho)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}
