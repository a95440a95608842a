package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// nobody is the ordinary user whose daemon some beds run.
const nobody = 65534

// bedConfig says what differs from the usual bed: root's daemon, a unix socket,
// eBPF where the kernel has it.
type bedConfig struct {
	ordinaryUser bool     // the daemon is not root's
	detect       string   // of the agent; auto by default
	transport    string   // unix (the default), tcp, exec or docker
	url          string   // of the link, where it is not made of transport
	noRace       bool     // programs without the race detector, for tests that measure
	settings     string   // settings.yaml
	fromFile     bool     // toggle, link and key are the home's, not flags
	etc          bool     // daemon and commands have an /etc of their own
	flags        []string // of vmbridge up, after those that every bed has
	through      []string // what the agent is started through, a command such as setpriv
	environ      []string // of vmbridge, besides this process's
}

// bed is a host and a guest with the product between them.
type bed struct {
	t           *testing.T
	config      bedConfig
	host, guest *netns.Namespace
	programs    string // directory
	link        string // its name; vm when empty
	key         linkkey.Key
	dir         string // logs, key and the link's socket
	home        string
	etc         *privateEtc // nil without one
	daemon      *process
	agent       *process
	view        view
	maker       *socket.Maker // of the guest's sockets, and its echo servers
}

// startBed makes a bed and waits until its link is up.
func startBed(t *testing.T, config bedConfig) *bed {
	t.Helper()
	b := newBed(t, config)
	b.startAgent()
	b.startDaemon()
	b.awaitLink()
	return b
}

// newBed makes host and guest, and starts nothing in them.
func newBed(t *testing.T, config bedConfig) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	b := &bed{t: t, config: config, programs: built.find(t, !config.noRace)}
	b.host, b.guest = newNamespace(t), newNamespace(t)
	b.dir = shortDir(t)
	b.home = filepath.Join(b.dir, "home")
	b.key = linkkey.New()
	for _, err := range []error{
		os.Mkdir(b.home, 0o700),
		os.WriteFile(filepath.Join(b.dir, "key"), []byte(b.key.String()+"\n"), 0o600),
		// The agent's copy: the other is the daemon's user's.
		os.WriteFile(filepath.Join(b.dir, "guest.key"), []byte(b.key.String()+"\n"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if config.fromFile {
		b.giveKey("vm")
		config.settings = b.settingsText(config.settings)
	}
	if config.settings != "" {
		if err := os.WriteFile(filepath.Join(b.home, "settings.yaml"), []byte(config.settings), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if config.etc {
		b.etc = b.startEtc()
	}
	b.maker = b.startMaker()
	if config.transport == "tcp" {
		joinNamespaces(t, b.host, hostWire, b.guest, guestWire)
	}
	if config.ordinaryUser {
		for _, name := range []string{"key", "home", "home/settings.yaml", "home/keys", "home/keys/vm"} {
			err := os.Chown(filepath.Join(b.dir, name), nobody, nobody)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	return b
}

// in is the bed for a subtest.
func (b *bed) in(t *testing.T) *bed {
	sub := *b
	sub.t, sub.view.t = t, t
	return &sub
}

func newNamespace(t testing.TB) *netns.Namespace {
	t.Helper()
	n, err := netns.New()
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("this root may not make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// shortDir is a directory whose sockets have short paths; anybody may enter it.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// listenURL is what the agent listens on, and linkURL how the daemon gets there.
func (b *bed) listenURL() string {
	if b.config.transport == "tcp" {
		return "tcp://" + guestWire.v4.String() + ":732"
	}
	return "unix://" + b.linkSocket()
}

func (b *bed) linkURL() string {
	if b.config.url != "" {
		return b.config.url
	}
	switch b.config.transport {
	case "docker":
		return "docker://"
	case "exec":
		return fmt.Sprintf("exec:nsenter --net=%s %s serve --stdio --detect %s",
			b.guest.Path(), filepath.Join(b.programs, "vmbridge-guest"), b.detect())
	}
	return b.listenURL()
}

func (b *bed) linkName() string {
	if b.link == "" {
		return "vm"
	}
	return b.link
}

func (b *bed) linkSocket() string { return filepath.Join(b.dir, "link-"+b.linkName()) }

func (b *bed) detect() string {
	if b.config.detect == "" {
		return "auto"
	}
	return b.config.detect
}

// startAgent starts the agent, where the daemon does not do that itself.
func (b *bed) startAgent() {
	b.t.Helper()
	if b.config.transport == "exec" || b.config.transport == "docker" {
		return
	}
	args := append(slices.Clone(b.config.through), filepath.Join(b.programs, "vmbridge-guest"),
		"serve", "--listen", b.listenURL(), "--key", filepath.Join(b.dir, "guest.key"), "--detect", b.detect())
	b.agent = b.spawn(b.guest, "agent", exec.Command(args[0], args[1:]...))
	if b.config.ordinaryUser {
		wait.Eventually(b.t, patience, "the agent listens", func() error {
			return os.Chown(b.linkSocket(), nobody, nobody)
		})
	}
}

func (b *bed) startDaemon() {
	b.t.Helper()
	args := []string{"up"}
	if !b.config.fromFile {
		args = append(args, "--enable", "--link", "vm="+b.linkURL(), "--key", filepath.Join(b.dir, "key"))
	}
	b.daemon = b.spawn(b.host, "daemon", b.command(append(args, b.config.flags...)...))
	b.follow()
}

// command is the vmbridge of the bed's user.
func (b *bed) command(args ...string) *exec.Cmd {
	args = append([]string{filepath.Join(b.programs, "vmbridge")}, args...)
	if b.etc != nil {
		args = append(b.etc.enter(b.config.ordinaryUser), args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = slices.Concat(os.Environ(), []string{control.HomeVariable + "=" + b.home}, b.config.environ)
	if b.config.ordinaryUser && b.etc == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// vmbridge runs a command of the command line.
func (b *bed) vmbridge(args ...string) (string, error) {
	cmd := b.command(args...)
	// Else the race detector has each command wait for a second before it ends.
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0")
	return runFor(b.host, patience, cmd)
}

func (b *bed) status() (control.Status, error) {
	return control.NewClient(b.home).Status(context.Background())
}

func (b *bed) awaitLink() {
	b.t.Helper()
	wait.Eventually(b.t, patience, "the link is up", func() error {
		s, err := b.status()
		if err == nil && s.Links[0].State != control.LinkUp {
			err = fmt.Errorf("it is %s: %s", s.Links[0].State, s.Links[0].Reason)
		}
		return err
	})
}

// detection is how the agent says it finds listeners.
func (b *bed) detection() (f control.Feature) {
	b.t.Helper()
	wait.Eventually(b.t, patience, "the agent tells about itself", func() error {
		s, err := b.status()
		if err == nil && s.Links[0].Detection.State == "" {
			err = errors.New("nothing yet")
		}
		if err == nil {
			f = s.Links[0].Detection
		}
		return err
	})
	return f
}

// need finds a program that the test drives, or skips the test. Daemons are
// outside of some users' PATH.
func (b *bed) need(program string) string {
	b.t.Helper()
	for _, name := range []string{program, "/usr/sbin/" + program, "/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	b.t.Skipf("needs %s", program)
	return ""
}
