package acceptance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// productVM is the guest of a bed as a product has it: nothing leads there but a program of
// the product's, and it has directories of its own where programs are kept.
type productVM struct {
	*bed
	pid  int
	path string // of the product's programs
}

// Where programs are kept in a VM, and where the agent may be.
var vmPlaces = []string{"/var/lib", "/usr/local"}

// newProductVM makes a bed whose guest is a VM. prepare is run in it first, as a shell does.
func newProductVM(t *testing.T, url, prepare string) *productVM {
	t.Helper()
	b := newBed(t, bedConfig{url: url})
	b.programs = built.carrying(t, true) // the agent of this tree, whatever was built before
	v := &productVM{bed: b, path: filepath.Join(b.dir, "products")}
	must(t, os.Mkdir(v.path, 0o755))
	b.config.environ = []string{"PATH=" + v.path + ":" + os.Getenv("PATH")}
	script := "set -e; mount --make-rprivate /\n"
	for _, place := range vmPlaces {
		script += "mount -t tmpfs -o mode=755 vm " + place + "\n"
	}
	script += prepare + "\necho ready; exec sleep 100000"
	p := b.spawn(b.guest, "vm", exec.Command(b.need("unshare"), "--mount", "sh", "-c", script))
	v.pid = p.pid()
	wait.Eventually(t, patience, "the VM runs", func() error {
		if !p.running() {
			t.Fatal(p.output())
		}
		if p.output() != "ready\n" {
			return errors.New(p.output())
		}
		return nil
	})
	return v
}

// enter is a command that runs another inside the VM, as a shell takes it.
func (v *productVM) enter() string {
	return fmt.Sprintf("nsenter --net=/proc/%d/ns/net --mount=/proc/%[1]d/ns/mnt --wdns=/", v.pid)
}

// runs runs shell code in the VM, and gives what it prints.
func (v *productVM) runs(code string) string {
	v.t.Helper()
	out, err := exec.Command("sh", "-c", "exec "+v.enter()+` sh -c "$0"`, code).CombinedOutput()
	if err != nil {
		v.t.Errorf("%s: %v: %s", code, err, out)
	}
	return strings.TrimSpace(string(out))
}

// product puts a program in place of a product's: for each command line, every
// argument in angle brackets, it runs some code. Other command lines are mistakes.
func (v *productVM) product(name string, lines map[string]string) {
	v.t.Helper()
	text := "#!/bin/sh\nline=$(printf '<%s>' \"$@\")\necho \"$line\" >> " + filepath.Join(v.path, name+".log") + "\ncase $line in\n"
	for line, code := range lines {
		text += "'" + line + "') " + code + ";;\n"
	}
	text += "*) echo \"" + name + " is called in another way: $line\" >&2; exit 98;;\nesac\n"
	must(v.t, os.WriteFile(filepath.Join(v.path, name), []byte(text), 0o755))
}

// calls are the command lines that a product's program was called with.
func (v *productVM) calls(name string) []string {
	v.t.Helper()
	text, err := readFile(filepath.Join(v.path, name+".log"))
	must(v.t, err)
	return strings.Split(strings.TrimSpace(text), "\n")
}

// sudo is shell code for sudo's work where there is nothing to become.
const sudo = `sudo() { exec "$@"; }; `

// agents are the processes of the agent in the VM.
func (v *productVM) agents() (pids []int) {
	v.t.Helper()
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", v.pid))
	must(v.t, err)
	links, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
	must(v.t, err)
	for _, link := range links {
		dir := filepath.Dir(filepath.Dir(link))
		name, _ := readFile(filepath.Join(dir, "comm"))
		if there, _ := os.Readlink(link); there == ours && strings.HasPrefix(name, "vmbridge-guest") {
			pid, err := strconv.Atoi(filepath.Base(dir))
			must(v.t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// awaitReason waits until the link is not up for a reason with these words.
func (v *productVM) awaitReason(words ...string) {
	v.t.Helper()
	wait.Eventually(v.t, patience, "the link says why it is not up", func() error {
		s, err := v.status()
		if err != nil {
			return err
		}
		for _, word := range words {
			if !strings.Contains(s.Links[0].Reason, word) {
				return fmt.Errorf("%q is missing: %s: %s", word, s.Links[0].State, s.Links[0].Reason)
			}
		}
		if s.Links[0].State == control.LinkUp {
			return errors.New("it is up")
		}
		return nil
	})
}
