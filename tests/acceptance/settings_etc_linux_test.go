package acceptance

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// privateEtc is a mount namespace in which /etc is an overlay, so that an
// administrator's policy can be written that this machine never sees. A process
// that does nothing keeps it.
type privateEtc struct{ keeper *process }

// startEtc makes one. What is mounted goes away with the process.
func (b *bed) startEtc() *privateEtc {
	b.t.Helper()
	b.need("unshare")
	b.need("nsenter")
	upper := filepath.Join(b.dir, "etc")
	must(b.t, os.Mkdir(upper, 0o755))
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", `
		mount -t tmpfs none "$0"
		mkdir "$0/upper" "$0/work"
		mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" none /etc
		rm -rf /etc/vmbridge
		echo ready
		exec cat`, upper)
	out, err := cmd.StdoutPipe()
	must(b.t, err)
	_, err = cmd.StdinPipe() // which cat waits for
	must(b.t, err)
	e := &privateEtc{b.spawn(b.host, "etc", cmd)}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		b.t.Skipf("no overlay on /etc here: %q, %v: %s", line, err, e.keeper.output())
	}
	return e
}

// enter is what a command is started through to be in the namespace.
func (e *privateEtc) enter(ordinaryUser bool) []string {
	through := []string{"nsenter", "--mount=" + fmt.Sprintf("/proc/%d/ns/mnt", e.keeper.pid())}
	if ordinaryUser {
		through = append(through, "--setuid", fmt.Sprint(nobody), "--setgid", fmt.Sprint(nobody))
	}
	return append(through, "--")
}

// path is where this process finds a file of the namespace.
func (e *privateEtc) path(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", e.keeper.pid(), path)
}

// policyPath is what the daemon calls the administrator's file.
const policyPath = "/etc/vmbridge/policy.json"

// writePolicy writes the administrator's file; keys are written as "exposure":
// `"loopback"`, each locked.
func (b *bed) writePolicy(text string) {
	b.t.Helper()
	must(b.t, os.MkdirAll(b.etc.path(filepath.Dir(policyPath)), 0o755))
	path := b.etc.path(policyPath)
	must(b.t, os.WriteFile(path+".new", []byte(text), 0o644))
	must(b.t, os.Rename(path+".new", path))
}

func (b *bed) removePolicy() {
	b.t.Helper()
	must(b.t, os.Remove(b.etc.path(policyPath)))
}

// locked is a policy of locked keys, each as KEY: VALUE in JSON.
func locked(keys ...string) string {
	var entries []string
	for i := 0; i < len(keys); i += 2 {
		entries = append(entries, fmt.Sprintf(`%q: {"locked": true, "value": %s}`, keys[i], keys[i+1]))
	}
	return "{" + strings.Join(entries, ", ") + "}"
}
