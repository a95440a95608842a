package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// The test program plays the agent (vmbridge-guest serve ...), a daemon that
// gets killed, and a command inside the sandbox.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		playAgent(os.Args[2:])
		return
	}
	switch os.Getenv("SANDBOX_TEST_ROLE") {
	case "daemon":
		self, _ := os.Executable()
		s, err := Start(context.Background(), Config{Name: "test", Home: os.Getenv("SANDBOX_TEST_HOME"),
			KeyFile: "/none", AgentPath: self, Logger: quiet()})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.NetNS())
		select {}
	case "shell":
		fmt.Println(Exec(os.Getenv("SANDBOX_TEST_NETNS"), []string{"sh", "-c", "readlink /proc/self/ns/net; exit 7"}, os.Environ()))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// playAgent tells everybody who connects its pid and network namespace, until
// SIGTERM.
func playAgent(args []string) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	var socket string
	for i, a := range args {
		if a == "--listen" {
			socket = strings.TrimPrefix(args[i+1], "unix://")
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, `{"level":"info","msg":"listening","args":"`+strings.Join(args, " ")+`","time":"now"}`)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			ns, _ := os.Readlink("/proc/self/ns/net")
			fmt.Fprintln(conn, os.Getpid(), ns)
			conn.Close()
		}
	}()
	<-stop
}

func quiet() *logrus.Logger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
}

// shortHome is a home whose socket paths are short.
func shortHome(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sbx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func startGuest(t *testing.T, home string, logger *logrus.Logger) *Sandbox {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Start(t.Context(), Config{Name: "test", Home: home, KeyFile: "/none", AgentPath: self, Logger: logger})
	if errors.Is(err, ErrNotPermitted) {
		t.Skipf("this root may not make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// ask waits until an agent answers whose pid is not the one given, and returns
// its pid and its network namespace.
func ask(t *testing.T, s *Sandbox, not int) (pid int, ns string) {
	t.Helper()
	wait.Until(t, restartTime, "a new agent answers", func() bool {
		conn, err := net.Dial("unix", strings.TrimPrefix(s.URL(), "unix://"))
		if err != nil {
			return false
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		n, _ := fmt.Sscan(line, &pid, &ns)
		return n == 2 && pid != not
	})
	return pid, ns
}

// inThread runs f on a thread of its own and waits for it.
func inThread(f func() error) error {
	done := make(chan error)
	onOwnThread(func() { done <- f() })
	return <-done
}

// restartTime is what a restart may take (G3).
const restartTime = 5 * time.Second

// nsLink is what readlink /proc/PID/ns/net says in the namespace at path.
func nsLink(t *testing.T, path string) string {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("net:[%d]", stat.Ino)
}

func mounted(t *testing.T, path string) bool {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(info), " "+path+" ")
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
