package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/vhostdevice"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// startDaemon runs vmbridge up in the background.
func startDaemon(t *testing.T, home string, args ...string) (daemon *exec.Cmd, stdout, stderr *lockedBuffer) {
	t.Helper()
	stdout, stderr = new(lockedBuffer), new(lockedBuffer)
	daemon = command(t, home, append([]string{"up"}, args...)...)
	daemon.Stdout, daemon.Stderr = stdout, stderr
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, daemon) })
	return daemon, stdout, stderr
}

// newDeviceHome is a home whose devices have ended before it is removed: one that
// starts would make it anew for its log.
func newDeviceHome(t *testing.T) string {
	t.Helper()
	home := newHome(t)
	t.Cleanup(func() {
		wait.Until(t, devicePatience, "the home's devices to end", func() bool {
			return !slices.ContainsFunc(processes(t), func(p string) bool {
				return strings.Contains(p, "\x00--log-file\x00"+home+"/")
			})
		})
	})
	return home
}

// linkReason waits until the daemon's only link is down for a reason.
func linkReason(t *testing.T, home, want string) {
	t.Helper()
	last := ""
	defer func() {
		if t.Failed() {
			t.Logf("the status was %s", last)
		}
	}()
	wait.Until(t, devicePatience, "the link to be down because "+want, func() bool {
		var s control.Status
		_, last, _ = invoke(t, home, "status", "--json")
		return json.Unmarshal([]byte(last), &s) == nil && len(s.Links) == 1 &&
			s.Links[0].State == control.LinkDown && strings.Contains(s.Links[0].Reason, want)
	})
}

// wantDownLines checks how often a daemon has logged that its link is down, which
// it does a moment after the status shows it.
func wantDownLines(t *testing.T, log *lockedBuffer, want int) {
	t.Helper()
	count := func() int { return strings.Count(log.String(), "link down") }
	wait.Until(t, devicePatience, "the log to tell of the link", func() bool { return count() >= want })
	if n := count(); n != want {
		t.Errorf("%d lines in the log, want %d:\n%s", n, want, log)
	}
}

// G3: the device outlives a daemon that is killed, and the next one takes it over.
// What the daemon waits for is in the status, and in the log once.
func TestDeviceOutlivesDaemon(t *testing.T) {
	home, path := newDeviceHome(t), newDevicePath(t)
	link := "vm=vhost-user://" + path + "?cid=9"
	daemon, stdout, stderr := startDaemon(t, home, "--link", link)
	linkReason(t, home, "no virtual machine has connected to the device")
	first := deviceRuns(t, path)
	if !strings.Contains(stdout.String(), vhostdevice.QEMUFlags(path)) {
		t.Errorf("the banner lacks QEMU's flags:\n%s", stdout)
	}
	log, err := os.ReadFile(filepath.Join(home, "devices", "vm.log"))
	if !strings.Contains(string(log), "device started") || err != nil {
		t.Errorf("the device's log: %q, %v", log, err)
	}

	// As QEMU does it: connect, and stay.
	machine, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	linkReason(t, home, "the guest has no driver for it yet")
	wantDownLines(t, stderr, 2) // one for each reason

	daemon.Process.Kill()
	daemon.Wait()
	again, _, stderr := startDaemon(t, home, "--link", link)
	linkReason(t, home, "the guest has no driver for it yet")
	second := deviceRuns(t, path)
	if second.PID != first.PID || !second.Machine {
		t.Errorf("after the daemon was killed: %+v, before: %+v", second, first)
	}
	if !strings.Contains(stderr.String(), fmt.Sprintf(`"pid":%d`, first.PID)) || !strings.Contains(stderr.String(), `"started":false`) {
		t.Errorf("the log does not tell of the device that was taken over:\n%s", stderr)
	}

	// Nor does the daemon's regular end, nor a second daemon, end it.
	stop(t, again)
	if s := deviceRuns(t, path); s.PID != first.PID || !s.Machine {
		t.Errorf("after the daemon's end: %+v", s)
	}
	otherHome := newHome(t)
	other, _, _ := startDaemon(t, otherHome, "--link", "vm=vhost-user://"+path+"?cid=10")
	linkReason(t, otherHome, fmt.Sprintf("kill %d", first.PID))
	stop(t, other)

	// A device that was killed leaves its sockets, which the next one replaces.
	syscall.Kill(first.PID, syscall.SIGKILL)
	deviceGone(t, path)
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("no stale socket to try it with: %v", err)
	}
	startDaemon(t, home, "--link", link)
	linkReason(t, home, "no virtual machine has connected")
	if s := deviceRuns(t, path); s.PID == first.PID || s.CID != 9 {
		t.Errorf("after the device was killed: %+v", s)
	}
}

// Two links, and two daemons, for one path have one device. One link that goes
// leaves it to the others.
func TestDeviceShared(t *testing.T) {
	homes := []string{newDeviceHome(t), newDeviceHome(t)}
	path := newDevicePath(t)
	url := "vhost-user://" + path + "?cid=9"
	for _, home := range homes {
		startDaemon(t, home, "--link", "a="+url, "--link", "b="+url+"&port=99")
	}
	s := deviceRuns(t, path)
	for _, home := range homes {
		wait.Until(t, devicePatience, "both links to find the device", func() bool {
			_, out, _ := invoke(t, home, "status", "--json")
			return strings.Count(out, "no virtual machine has connected") >= 2
		})
	}
	if again := deviceRuns(t, path); again.PID != s.PID {
		t.Errorf("%+v, and then %+v", s, again)
	}
	wait.Until(t, devicePatience, "the devices too many to end", func() bool {
		running := 0
		for _, p := range processes(t) {
			if strings.Contains(p, "--socket\x00"+path+"\x00") {
				running++
			}
		}
		return running == 1
	})
}

// processes are the command lines of all processes.
func processes(t *testing.T) (all []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil { // it may just have ended
			all = append(all, string(line))
		}
	}
	return all
}

// A link that is taken out of the settings leaves its device alone.
func TestDeviceOutlivesLink(t *testing.T) {
	home, path := newDeviceHome(t), newDevicePath(t)
	file := filepath.Join(home, "settings.yaml")
	text := "links:\n- name: vm\n  url: vhost-user://" + path + "?cid=9\n- name: other\n  url: exec:sleep 1000\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startDaemon(t, home)
	s := deviceRuns(t, path)
	if err := os.WriteFile(file, []byte("links:\n- name: other\n  url: exec:sleep 1000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, devicePatience, "the link to go", func() bool {
		_, out, _ := invoke(t, home, "status", "--json")
		return out != "" && !strings.Contains(out, path)
	})
	if again := deviceRuns(t, path); again.PID != s.PID {
		t.Errorf("%+v, and then %+v", s, again)
	}
}

// The reason that a device cannot be started is the link's.
func TestDeviceCannotStart(t *testing.T) {
	newDevicePath(t) // skips where there is none
	home := newDeviceHome(t)
	_, _, stderr := startDaemon(t, home, "--link", "vm=vhost-user:///proc/v.sock?cid=9")
	linkReason(t, home, "listen on /proc/v.sock.hybrid")
	linkReason(t, home, "start the device at /proc/v.sock")
	wantDownLines(t, stderr, 1)
}
