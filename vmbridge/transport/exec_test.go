//go:build unix

package transport_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

func start(t *testing.T, command string, stderr func(string)) net.Conn {
	t.Helper()
	needShell(t)
	c, err := mustParse("exec:"+command).Dial(testContext(t), transport.DialOptions{Stderr: stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestExecQuotes checks that the command is split as by a shell.
func TestExecQuotes(t *testing.T) {
	c := start(t, `printf '%s|' one 'two words' "three \"quoted\"" four\ words`, nil)
	got, err := io.ReadAll(c)
	if want := `one|two words|three "quoted"|four words|`; string(got) != want || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestExecFailure checks that a command that fails is explained.
func TestExecFailure(t *testing.T) {
	for _, tc := range []struct{ command, want string }{
		{"exit 7", "exit status 7"},
		{"echo one >&2; printf two >&2; exit 255", "exit status 255 (as ssh does when it cannot connect or log in): two"},
		{"vmbridge-no-such-command", "exit status 127 (not found)"},
		{"kill -9 $$", "signal: killed"},
	} {
		c := start(t, tc.command, nil)
		_, err := c.Read(make([]byte, 1))
		var exit *transport.ExitError
		if !errors.As(err, &exit) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", tc.command, err, tc.want)
		}
		for err = nil; err == nil; {
			_, err = c.Write(make([]byte, 1<<10))
		}
		if !errors.As(err, &exit) {
			t.Errorf("%s: write: %v", tc.command, err)
		}
	}
	c := start(t, "exit 0", nil)
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a command that ends well: %v, want EOF", err)
	}
}

// TestExecStderr holds H1: lines arrive one by one and safe to print.
func TestExecStderr(t *testing.T) {
	var lines []string
	c := start(t, `printf 'one\r\n\ntw\033[31mo\n' >&2; head -c 2500 /dev/zero | tr '\0' x >&2; printf '\nend' >&2; cat`,
		func(s string) { lines = append(lines, s) })
	if err := c.Close(); err != nil { // the command has ended when it returns
		t.Fatal(err)
	}
	x := strings.Repeat("x", 1024)
	want := []string{"one", "tw\uFFFD[31mo", x, x, x[:2500-2048], "end"}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q", lines)
	}
}

// TestExecClose checks that Close kills and reaps a command that ignores the
// end of its input and requests to end, with its children.
func TestExecClose(t *testing.T) {
	c := start(t, `trap '' TERM; sleep 1000 & echo $$ $!; while :; do wait; done`, nil)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, f := range strings.Fields(line) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) != 2 || !alive(pids[0]) || !alive(pids[1]) {
		t.Fatalf("processes %v do not run", pids)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if alive(pids[0]) {
		t.Errorf("the command, process %d, is not reaped", pids[0])
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); alive(pids[1]); <-tick.C { // init reaps it
		if time.Now().After(end) {
			state, _ := os.ReadFile("/proc/" + strconv.Itoa(pids[1]) + "/stat")
			if f := strings.Fields(string(state)); len(f) > 2 && f[2] == "Z" {
				break // nobody here reaps orphans
			}
			t.Fatalf("the command's child, process %d, lives on", pids[1])
		}
	}
}

// TestExecKilled checks that a command killed by somebody else ends a read.
func TestExecKilled(t *testing.T) {
	c := start(t, `echo $$; exec cat`, nil)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, err = c.Read(make([]byte, 1))
	var exit *transport.ExitError
	if !errors.As(err, &exit) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v", err)
	}
}

// TestStdioNeedsPipes checks that stdio: refuses what cannot carry a link.
func TestStdioNeedsPipes(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"=/nowhere")
	cmd.Stdin, cmd.Stdout = null, null
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "standard input is no pipe") {
		t.Errorf("%v: %s", err, &stderr)
	}
}
