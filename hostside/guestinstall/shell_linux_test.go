package guestinstall_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/guestinstall"
	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// The program's place, which every test here covers with a file system of its own.
const place = "/usr/local/bin"

// What the agent of these tests is: a script with some weight, which notes what it
// was called with.
const script = `#!/bin/sh
echo "installing as $*"
echo "and complaining" >&2
test "$1 $2" = "install --key-stdin" || exit 2
cat > /usr/local/bin/key
cp "$0" /usr/local/bin/vmbridge-guest
exit %d
: `

// guest is where a test installs, and what it hears.
type guest struct {
	config guestinstall.Config
	agent  []byte

	mu          sync.Mutex
	out, stderr []string
}

// newGuest covers the program's place. command leads to the shell.
func newGuest(t *testing.T, command string) *guest {
	t.Helper()
	if err := syscall.Mount("guest", place, "tmpfs", 0, "size=2m,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(place, syscall.MNT_DETACH) })
	g := &guest{}
	g.carry(0, 700<<10)
	g.config = guestinstall.Config{
		Command: command,
		Key:     linkkey.New(),
		Agent: func(machine string) (io.ReadCloser, int64, error) {
			if machine != "x86_64" && machine != "aarch64" {
				return nil, 0, fmt.Errorf("%w: %s", guestinstall.ErrMachine, machine)
			}
			return io.NopCloser(bytes.NewReader(g.agent)), int64(len(g.agent)), nil
		},
		Out:    g.hear(&g.out),
		Stderr: g.hear(&g.stderr),
	}
	return g
}

// carry makes an agent of that size whose install ends with status. It has every
// byte in it that a shell or a terminal could take for something else.
func (g *guest) carry(status, size int) {
	g.agent = fmt.Appendf(nil, script, status)
	for len(g.agent) < size {
		g.agent = append(g.agent, byte(len(g.agent)*7))
	}
}

func (g *guest) hear(list *[]string) func(string) {
	return func(line string) {
		g.mu.Lock()
		defer g.mu.Unlock()
		*list = append(*list, line)
	}
}

// said is everything that a user would see.
func (g *guest) said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(slices.Concat(g.out, g.stderr), "\n")
}

// run installs, and checks what holds however it ends: the key is not shown, and
// nothing temporary stays.
func (g *guest) run(t *testing.T, ctx context.Context) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := guestinstall.Run(ctx, g.config)
	if said := g.said() + fmt.Sprint(err); strings.Contains(said, g.config.Key.String()[:16]) {
		t.Errorf("the key is shown:\n%s", said)
	}
	left, globErr := filepath.Glob(place + "/.vmbridge*")
	if len(left) > 0 || globErr != nil {
		t.Errorf("left behind: %v, %v", left, globErr)
	}
	return err
}

// installed checks that agent and key have arrived as they were.
func (g *guest) installed(t *testing.T) {
	t.Helper()
	agent, err := os.ReadFile(place + "/vmbridge-guest")
	if err != nil || !bytes.Equal(agent, g.agent) {
		t.Errorf("the agent has %d bytes, want %d: %v", len(agent), len(g.agent), err)
	}
	key, err := os.ReadFile(place + "/key")
	if err != nil || string(key) != g.config.Key.String()+"\n" {
		t.Errorf("another key arrived: %v", err)
	}
}

// need skips the test without a program.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
}

// TestShells: each kind of shell, and what login shells print and read, leads to
// the same.
func TestShells(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	for name, test := range map[string]struct{ needs, command string }{
		"sh":                  {"sh", "sh"},
		"dash":                {"dash", "dash"},
		"bash":                {"bash", "bash"},
		"login bash":          {"bash", "bash --login"},
		"interactive bash":    {"bash", "bash -i"},
		"busybox":             {"busybox", "busybox ash"},
		"message of the day":  {"sh", `printf 'Welcome!\nvmbridge0123 hello\n\033[1mYou have mail. $ '; exec sh`},
		"a line without end":  {"sh", `head -c 100000 /dev/zero | tr '\0' x; exec sh`},
		"a slow reader":       {"sh", "while read -r line; do printf '%s\\n' \"$line\"; break; done | sh; exit 3"},
		"sudo, such as it is": {"env", "env -i PATH=/usr/bin:/bin vmbridge-guest serve --stdio"},
	} {
		t.Run(name, func(t *testing.T) {
			need(t, test.needs)
			g := newGuest(t, guestinstall.ShellCommand(test.command))
			err := g.run(t, t.Context())
			if name == "a slow reader" { // whose way in ends after one order
				if !errors.Is(err, guestinstall.ErrHungUp) && !strings.Contains(fmt.Sprint(err), "exit status 3") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, g.said())
			}
			g.installed(t)
			if said := g.said(); !strings.Contains(said, "installing as install --key-stdin") || !strings.Contains(said, "and complaining") {
				t.Errorf("what the agent printed is missing:\n%s", said)
			}
		})
	}
}

// TestRefused: what does not work says what to do, and changes nothing.
func TestRefused(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	for name, test := range map[string]struct {
		needs, command string
		is             error
		says           string
	}{
		"ordinary user": {"setpriv", "setpriv --reuid 65534 --clear-groups sh", guestinstall.ErrNotRoot, "sudo"},
		"terminal":      {"script", "script -qec sh /dev/null", guestinstall.ErrTerminal, "-t"},
		"other machine": {"sh", instead(t, "uname", "echo riscv64"), guestinstall.ErrMachine, "riscv64"},
		"no such thing": {"sh", "vmbridge-no-such-command", nil, "not found"},
		"no login":      {"sh", "echo 'Permission denied (publickey).' >&2; exit 255", nil, "exit status 255 (as ssh does when it cannot connect or log in): Permission denied (publickey)."},
		"hangs up":      {"sh", "true", guestinstall.ErrHungUp, ""},
		"not a shell":   {"cat", "timeout 1 cat", nil, "124"},
	} {
		t.Run(name, func(t *testing.T) {
			need(t, test.needs)
			g := newGuest(t, test.command)
			err := g.run(t, t.Context())
			if err == nil || (test.is != nil && !errors.Is(err, test.is)) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v\n%s", err, g.said())
			}
			if entries, _ := os.ReadDir(place); len(entries) > 0 {
				t.Errorf("changed: %v", entries)
			}
		})
	}
}

// TestInstallFails: the status of the agent's install is passed on.
func TestInstallFails(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	g := newGuest(t, "sh")
	g.carry(7, 1000)
	if err := g.run(t, t.Context()); !errors.Is(err, guestinstall.ErrFailed) || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("got %v\n%s", err, g.said())
	}
}

// TestDiskFull: the rest of an agent that finds no room is not taken for orders.
func TestDiskFull(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	for _, shell := range []string{"dash", "bash", "busybox ash"} {
		t.Run(shell, func(t *testing.T) {
			need(t, strings.Fields(shell)[0])
			g := newGuest(t, shell)
			g.carry(0, 3<<20)
			proof := filepath.Join(t.TempDir(), "proof")
			for range 1000 { // as a shell would read it
				g.agent = append(g.agent, "\ntouch "+proof+"\n"...)
			}
			err := g.run(t, t.Context())
			if !errors.Is(err, guestinstall.ErrFailed) || !strings.Contains(g.said(), "head: ") {
				t.Errorf("got %v\n%s", err, g.said())
			}
			if _, err := os.Stat(proof); err == nil {
				t.Error("the shell has run a part of the agent")
			}
		})
	}
}

// TestInterrupted: a user who gives up in the middle leaves nothing behind.
func TestInterrupted(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	g := newGuest(t, "sh")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half := int64(len(g.agent) / 2)
	g.config.Agent = func(string) (io.ReadCloser, int64, error) {
		first := io.LimitReader(bytes.NewReader(g.agent), half)
		return io.NopCloser(io.MultiReader(first, reader(func([]byte) (int, error) {
			cancel()
			return 0, ctx.Err()
		}))), int64(len(g.agent)), nil
	}
	if err := g.run(t, ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestDamaged: an agent that does not arrive as it was sent is not run.
func TestDamaged(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	need(t, "sha256sum")
	for name, program := range map[string]string{"changed": `"$real" "$@" | tr a b`, "short": `"$real" "$@" | "$real" -c 1000`} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, instead(t, "head", program))
			if err := g.run(t, t.Context()); !errors.Is(err, guestinstall.ErrTransfer) {
				t.Errorf("got %v\n%s", err, g.said())
			}
			if _, err := os.Stat(place + "/key"); err == nil {
				t.Error("the agent was run")
			}
		})
	}
}

// instead gives the command of a shell that finds a script in place of a program;
// the script has the program's path as $real.
func instead(t *testing.T, program, script string) string {
	t.Helper()
	need(t, program)
	real, _ := exec.LookPath(program)
	dir := t.TempDir()
	text := "#!/bin/sh\nreal=" + real + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, program), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return "PATH=" + dir + ":$PATH exec sh"
}

type reader func([]byte) (int, error)

func (r reader) Read(b []byte) (int, error) { return r(b) }
