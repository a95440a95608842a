package acceptance

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// sshd is a real one in a VM, which the host reaches over a wire between them.
type sshd struct {
	*productVM
	client string // its configuration
}

// startSSHD starts it. command, which may be empty, is all that it runs.
func startSSHD(t *testing.T, url, command string) *sshd {
	t.Helper()
	v := newProductVM(t, url, "mount -t tmpfs -o mode=755 run /run; mkdir /run/sshd")
	server, keygen := v.need("sshd"), v.need("ssh-keygen")
	v.need("ssh")
	joinNamespaces(t, v.host, hostWire, v.guest, guestWire)
	s := &sshd{productVM: v, client: filepath.Join(v.dir, "ssh_config")}
	for _, name := range []string{"hostkey", "userkey", "strangerkey"} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(v.dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	public, err := readFile(filepath.Join(v.dir, "userkey.pub"))
	must(t, err)
	hostKey, err := readFile(filepath.Join(v.dir, "hostkey.pub"))
	must(t, err)
	serverConfig := fmt.Sprintf(`ListenAddress %s
Port 2222
HostKey %s/hostkey
AuthorizedKeysFile %[2]s/authorized
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
`, guestWire.v4, v.dir)
	if command != "" {
		serverConfig += "ForceCommand " + command + "\n"
	}
	for name, text := range map[string]string{
		"authorized": public, "sshd_config": serverConfig,
		"known": fmt.Sprintf("[%s]:2222 %s", guestWire.v4, hostKey),
		"ssh_config": fmt.Sprintf("Host vm stranger\n HostName %s\n Port 2222\n User root\n IdentitiesOnly yes\n BatchMode yes\n UserKnownHostsFile %s/known\n"+
			"Host vm\n IdentityFile %[2]s/userkey\nHost stranger\n IdentityFile %[2]s/strangerkey\n", guestWire.v4, v.dir),
	} {
		must(t, os.WriteFile(filepath.Join(v.dir, name), []byte(text), 0o600))
	}
	v.spawn(v.guest, "sshd", exec.Command("sh", "-c", "exec "+v.enter()+" "+server+" -D -e -f "+filepath.Join(v.dir, "sshd_config")))
	wait.Eventually(t, patience, "sshd listens", func() error {
		return v.host.Do(func() error {
			c, err := net.Dial("tcp", net.JoinHostPort(guestWire.v4.String(), "2222"))
			if err == nil {
				err = c.Close()
			}
			return err
		})
	})
	return s
}

// linkBy makes the link of a command, with ssh's configuration and the agent's place.
func (s *sshd) linkBy(command string) {
	agent := filepath.Join(built.find(s.t, true), "vmbridge-guest")
	s.config.url = "exec:" + strings.NewReplacer("ssh ", "ssh -F "+s.client+" ", "AGENT", agent).Replace(command)
}

// serves checks that what listens in the VM is forwarded.
func (v *productVM) serves(port string) {
	v.t.Helper()
	v.meet(socket.Spec{Network: "tcp", Address: "127.0.0.1:" + port}).pair()
}

// TestExecSSH: a link over a real ssh, and G3 with it.
func TestExecSSH(t *testing.T) {
	t.Parallel()
	s := startSSHD(t, "", "")
	s.linkBy("ssh vm AGENT serve --stdio")
	s.startDaemon()
	s.awaitLink()
	s.serves("8000")
	s.daemon.kill()
	s.awaitNoAgent()
	s.startDaemon()
	s.awaitLink()
	s.serves("8001")
}

// TestExecSSHSlow: a login that takes longer than any handshake is waited for, and
// the status says so meanwhile.
func TestExecSSHSlow(t *testing.T) {
	t.Parallel()
	s := startSSHD(t, "", `sh -c 'sleep 8; eval "exec $SSH_ORIGINAL_COMMAND"'`)
	s.linkBy("ssh vm AGENT serve --stdio")
	started := time.Now()
	s.startDaemon()
	s.awaitReason("no answer yet, after 5s; waiting for up to 2m0s")
	s.awaitLink()
	if took := time.Since(started); took < 8*time.Second || strings.Contains(s.daemon.output(), "link down") {
		t.Errorf("took %s", took)
	}
	s.serves("8000")
}

// TestExecSSHTrouble: what ssh, or the shell behind it, says is in the status.
func TestExecSSHTrouble(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		command string
		says    []string
	}{
		"no login":   {"ssh stranger AGENT serve --stdio", []string{"exit status 255 (as ssh does when it cannot connect or log in)", "Permission denied (publickey"}},
		"no route":   {"ssh -p 1 vm AGENT serve --stdio", []string{"255", "Connection refused"}},
		"no agent":   {"ssh vm /nowhere/vmbridge-guest serve --stdio", []string{"127 (not found)", "/nowhere/vmbridge-guest"}},
		"no program": {"ssh vm /etc/passwd", []string{"126 (it cannot be run)", "ermission denied"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSSHD(t, "", "")
			s.linkBy(test.command)
			s.startDaemon()
			s.awaitReason(test.says...)
		})
	}
}

// TestPresetOverSSH: as Lima has it, over a real ssh, with a login shell in between.
func TestPresetOverSSH(t *testing.T) {
	t.Parallel()
	s := startSSHD(t, "lima://dev", "")
	// What limactl has ssh run.
	script := `cd / || exit 1 ; exec "$SHELL" --login -c '` + sudo + `sudo sh'`
	must(t, os.WriteFile(filepath.Join(s.dir, "script"), []byte(script), 0o600))
	s.product("limactl", map[string]string{limaLine: "exec ssh -F " + s.client + ` vm -- "$(cat ` + s.dir + `/script)"`})
	s.startDaemon()
	s.awaitLink()
	s.serves("8000")
	s.daemon.kill()
	s.awaitNoAgent()
	s.startDaemon()
	s.awaitLink()
	if strings.Contains(s.daemon.output(), "copying") {
		t.Error("copied again")
	}
	s.serves("8001")
}
