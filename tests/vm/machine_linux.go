package vm

import (
	"bufio"
	"bytes"
	"cmp"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// bootLimit is generous: emulation on a busy machine with two cores.
const bootLimit = 3 * time.Minute

const qemu = "qemu-system-x86_64"

// Config is a machine to start.
type Config struct {
	Kernel    Kernel
	Initramfs string
	Append    string   // more words for the kernel's command line
	Memory    string   // as QEMU has it; 512M when empty
	Disk      string   // the file of /dev/vda, which stays as it is; none when empty
	Args      []string // more arguments of QEMU
	// Namespace is where QEMU runs; nil is the test's own.
	Namespace *netns.Namespace
}

// VsockArgs are QEMU's arguments for a vhost-user vsock device at a socket.
func VsockArgs(socket string) []string {
	return []string{
		"-chardev", "socket,id=c0,path=" + socket,
		"-device", "vhost-user-vsock-pci,chardev=c0",
	}
}

// Machine is a running virtual machine.
type Machine struct {
	t       testing.TB
	command *exec.Cmd
	monitor string // the socket of QEMU's monitor
	ended   chan struct{}
	err     error // of the process, once ended is closed

	mu    sync.Mutex
	lines []string
}

// Start boots a machine, which is killed when the test ends. It skips the test
// where there is no QEMU.
func Start(t testing.TB, c Config) *Machine {
	t.Helper()
	if _, err := exec.LookPath(qemu); err != nil {
		t.Skipf("no QEMU (qemu-system-x86): %v", err)
	}
	m := &Machine{t: t, ended: make(chan struct{}), monitor: filepath.Join(t.TempDir(), "monitor")}
	memory := cmp.Or(c.Memory, "512M")
	args := []string{
		// Never KVM: where tests run it may be missing, or not work.
		"-accel", "tcg", "-cpu", "max", "-m", memory, "-smp", "2", "-nographic", "-nodefaults",
		"-object", "memory-backend-memfd,id=mem0,size=" + memory + ",share=on",
		"-machine", "q35,memory-backend=mem0",
		"-serial", "stdio", "-monitor", "unix:" + m.monitor + ",server=on,wait=off",
		"-kernel", c.Kernel.Image, "-initrd", c.Initramfs,
		"-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on " + c.Append,
	}
	if c.Disk != "" {
		// What the machine writes goes to a file that QEMU has deleted already.
		args = append(args, "-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,file="+c.Disk)
	}
	args = append(args, c.Args...)
	m.command = exec.Command(qemu, args...)
	console, err := m.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	m.command.Stderr = m.command.Stdout
	// QEMU ends with the thread that has started it, so with this process at the
	// latest, however that ends.
	m.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	start := m.command.Start
	if c.Namespace != nil {
		start = func() error { return c.Namespace.Start(m.command) }
	}
	started := make(chan error)
	go func() {
		defer close(m.ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := start()
		started <- err
		if err == nil {
			m.read(console)
			m.err = m.command.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", qemu, err)
	}
	t.Cleanup(func() {
		m.Kill()
		if t.Failed() {
			t.Logf("the console:\n%s", m.Console())
		}
	})
	return m
}

func (m *Machine) read(console io.Reader) {
	in := bufio.NewScanner(console)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		m.mu.Lock()
		m.lines = append(m.lines, strings.TrimRight(in.Text(), "\r"))
		m.mu.Unlock()
	}
}

// Console is what the machine and QEMU have printed.
func (m *Machine) Console() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.lines, "\n")
}

// WaitFor waits until the console has had n lines with the text in them.
func (m *Machine) WaitFor(text string, n int) {
	m.t.Helper()
	wait.Until(m.t, bootLimit, text+" on the console", func() bool {
		select {
		case <-m.ended:
			m.t.Fatalf("QEMU has ended: %v", m.err)
		default:
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		count := 0
		for _, line := range m.lines {
			if strings.Contains(line, text) {
				count++
			}
		}
		return count >= n
	})
}

// Monitor gives QEMU's monitor a command, such as stop, cont or system_reset, and
// returns when it has been carried out.
func (m *Machine) Monitor(command string) {
	m.t.Helper()
	c, err := net.Dial("unix", m.monitor)
	if err != nil {
		m.t.Fatalf("QEMU's monitor: %v", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bootLimit))
	in := bufio.NewReader(c)
	if err = prompt(in); err == nil {
		if _, err = io.WriteString(c, command+"\n"); err == nil {
			err = prompt(in)
		}
	}
	if err != nil {
		m.t.Fatalf("QEMU's monitor, %s: %v", command, err)
	}
}

// prompt reads until the monitor waits for a command.
func prompt(in *bufio.Reader) error {
	var seen []byte
	for !bytes.HasSuffix(seen, []byte("(qemu) ")) {
		b, err := in.ReadByte()
		if err != nil {
			return err
		}
		seen = append(seen, b)
	}
	return nil
}

// Kill ends QEMU at once, and returns when it has ended.
func (m *Machine) Kill() {
	m.command.Process.Kill()
	<-m.ended
}
