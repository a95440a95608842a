package listeners

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	roleVariable = "VMBRIDGE_TEST_ROLE"
	roleTests    = "tests"   // the tests, in a network namespace of their own
	roleProgram  = "program" // a program with sockets, see program
)

// TestMain runs the tests in a process with a network namespace of its own, so
// that neither this machine's listeners nor other test runs are seen.
func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case roleProgram:
		runProgram(os.Stdin, os.Stdout)
		os.Exit(0)
	case roleTests:
		if err := loopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, "raise the loopback:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		fmt.Println("skipped: a network namespace of its own needs root")
		os.Exit(0)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"="+roleTests)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Println("skipped: no network namespace:", err)
			os.Exit(0)
		}
		os.Exit(1)
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// program is another process that makes sockets as it is told: one command a
// line, each answered by "ok ..." or "error ...". Sockets have names.
//
//	socket NAME inet|inet6 stream|dgram [mptcp]
//	v6only NAME 0|1
//	reuseport NAME
//	bind NAME ADDRESS:PORT        answers with the address that it got
//	threadbind NAME ADDRESS:PORT  the same from a thread of its own
//	listen NAME                   answers with the address and when it was called
//	connect NAME ADDRESS:PORT
//	close NAME                    answers with when it was called
//	many NAME tcp|udp COUNT PORT  COUNT sockets on 127.0.0.1 from PORT on
//	closemany NAME
//	clients COUNT                 UDP clients, one after another
//	fork NAME                     a child inherits the socket, this process exits
//	comm NAME                     sets the name of the process
type program struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startProgram(t testing.TB, attr *syscall.SysProcAttr) *program {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+roleProgram)
	cmd.Stderr = os.Stderr
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(p.stop)
	return p
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// name is the kernel's name of the program.
func (p *program) name() string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.pid()))
	if err != nil {
		p.t.Error(err)
	}
	return strings.TrimSpace(string(comm))
}

// stop ends the program and waits for it.
func (p *program) stop() {
	p.in.Close()
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// do runs a command and gives its answer.
func (p *program) do(format string, args ...any) string {
	p.t.Helper()
	line := fmt.Sprintf(format, args...)
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.t.Fatalf("program: %s: %v", line, err)
	}
	if !p.out.Scan() {
		p.t.Fatalf("program: %s: no answer: %v", line, p.out.Err())
	}
	answer, ok := strings.CutPrefix(p.out.Text(), "ok")
	if !ok {
		p.t.Fatalf("program: %s: %s", line, p.out.Text())
	}
	return strings.TrimSpace(answer)
}

// listen makes a socket and has it wait for peers; it gives the address. A name
// of kind is like "tcp4", "tcp6", "tcp6only", "udp4", "udp6only", "mptcp4".
func (p *program) listen(name, kind, addr string) netip.AddrPort {
	p.t.Helper()
	family, typ, extra := "inet", "dgram", ""
	if strings.Contains(kind, "6") {
		family = "inet6"
	}
	if strings.Contains(kind, "tcp") {
		typ = "stream"
	}
	if strings.HasPrefix(kind, "mptcp") {
		extra = "mptcp"
	}
	p.do("socket %s %s %s %s", name, family, typ, extra)
	if family == "inet6" {
		only := 0
		if strings.HasSuffix(kind, "only") {
			only = 1
		}
		p.do("v6only %s %d", name, only)
	}
	bound := p.do("bind %s %s", name, addr)
	if typ == "stream" {
		p.do("listen %s", name)
	}
	return netip.MustParseAddrPort(bound)
}

// monotonic is CLOCK_MONOTONIC, which two processes can compare.
func monotonic() time.Duration { return clock(unix.CLOCK_MONOTONIC) }

func runProgram(in io.Reader, out io.Writer) {
	sockets, groups := map[string]int{}, map[string][]int{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		answer, err := runCommand(strings.Fields(lines.Text()), sockets, groups)
		if err != nil {
			fmt.Fprintln(out, "error", err)
		} else {
			fmt.Fprintln(out, "ok", answer)
		}
	}
}

func runCommand(f []string, sockets map[string]int, groups map[string][]int) (string, error) {
	name := f[1]
	fd := sockets[name]
	switch f[0] {
	case "socket":
		domain, typ, proto := unix.AF_INET, unix.SOCK_STREAM, 0
		if f[2] == "inet6" {
			domain = unix.AF_INET6
		}
		if f[3] == "dgram" {
			typ = unix.SOCK_DGRAM
		}
		if len(f) > 4 {
			proto = unix.IPPROTO_MPTCP
		}
		fd, err := unix.Socket(domain, typ, proto)
		sockets[name] = fd
		return "", err
	case "v6only":
		n, _ := strconv.Atoi(f[2])
		return "", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, n)
	case "reuseport":
		return "", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	case "bind":
		return bindTo(fd, f[2])
	case "threadbind":
		type result struct {
			addr string
			err  error
		}
		c := make(chan result)
		go func() {
			runtime.LockOSThread() // and never unlock: the thread ends
			addr, err := bindTo(fd, f[2])
			c <- result{addr, err}
		}()
		r := <-c
		return r.addr, r.err
	case "listen":
		when := monotonic()
		if err := unix.Listen(fd, 16); err != nil {
			return "", err
		}
		addr, err := localAddr(fd)
		return fmt.Sprintf("%s %d", addr, when), err
	case "connect":
		return "", unix.Connect(fd, sockaddr(fd, netip.MustParseAddrPort(f[2])))
	case "close":
		when := monotonic()
		return fmt.Sprint(int64(when)), unix.Close(fd)
	case "many":
		count, _ := strconv.Atoi(f[3])
		port, _ := strconv.Atoi(f[4])
		for i := range count {
			typ := unix.SOCK_STREAM
			if f[2] == "udp" {
				typ = unix.SOCK_DGRAM
			}
			fd, err := unix.Socket(unix.AF_INET, typ, 0)
			if err != nil {
				return "", err
			}
			if _, err := bindTo(fd, fmt.Sprintf("127.0.0.1:%d", port+i)); err != nil {
				return "", err
			}
			if f[2] == "tcp" {
				if err := unix.Listen(fd, 1); err != nil {
					return "", err
				}
			}
			groups[name] = append(groups[name], fd)
		}
		return fmt.Sprint(int64(monotonic())), nil
	case "closemany":
		for _, fd := range groups[name] {
			unix.Close(fd)
		}
		delete(groups, name)
		return fmt.Sprint(int64(monotonic())), nil
	case "clients":
		count, _ := strconv.Atoi(f[1])
		for range count {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return "", err
			}
			// Not connected: the kernel binds it at the first datagram.
			to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}
			if err := unix.Sendto(fd, []byte("?"), 0, to); err != nil {
				return "", err
			}
			unix.Close(fd)
		}
		return "", nil
	case "fork":
		cmd := exec.Command("sleep", "60")
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "socket")}
		if err := cmd.Start(); err != nil {
			return "", err
		}
		fmt.Println("ok", cmd.Process.Pid)
		os.Exit(0)
	case "comm":
		return "", os.WriteFile("/proc/self/comm", []byte(name), 0)
	}
	return "", fmt.Errorf("no command %q", f[0])
}

func sockaddr(fd int, a netip.AddrPort) unix.Sockaddr {
	if domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); domain == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func bindTo(fd int, addr string) (string, error) {
	if err := unix.Bind(fd, sockaddr(fd, netip.MustParseAddrPort(addr))); err != nil {
		return "", err
	}
	return localAddr(fd)
}

func localAddr(fd int) (string, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String(), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String(), nil
	}
	return "", fmt.Errorf("address %T", sa)
}
