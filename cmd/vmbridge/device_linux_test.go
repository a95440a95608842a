package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/vhostdevice"
	"github.com/vmbridge/vmbridge/hostside/vhostvsock"
	"github.com/vmbridge/vmbridge/tests/wait"
)

const devicePatience = 20 * time.Second

// newDevicePath is where a device may run. One that does is ended in the end.
func newDevicePath(t *testing.T) string {
	t.Helper()
	if !vhostvsock.Supported() {
		t.Skip("no vhost-user device on this architecture")
	}
	path := filepath.Join(newHome(t), "v.sock")
	t.Cleanup(func() {
		if s, ok := deviceAt(path); ok {
			syscall.Kill(s.PID, syscall.SIGKILL)
			deviceGone(t, path)
		}
	})
	return path
}

// deviceAt asks a device what it is.
func deviceAt(path string) (s vhostdevice.Status, running bool) {
	c, err := net.Dial("unix", path+".hybrid")
	if err != nil {
		return s, false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(devicePatience))
	io.WriteString(c, "STATUS\n")
	line, _ := bufio.NewReader(c).ReadBytes('\n')
	return s, json.Unmarshal(line, &s) == nil
}

func deviceRuns(t *testing.T, path string) (s vhostdevice.Status) {
	t.Helper()
	wait.Until(t, devicePatience, "the device to answer", func() (ok bool) {
		s, ok = deviceAt(path)
		return ok
	})
	return s
}

func deviceGone(t *testing.T, path string) {
	t.Helper()
	wait.Until(t, devicePatience, "the device to end", func() bool {
		c, err := net.Dial("unix", path+".hybrid")
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// The device command by itself: what it says, what it leaves, and how it ends.
func TestDevice(t *testing.T) {
	path := newDevicePath(t)
	dir := filepath.Dir(path)
	device := command(t, dir, "device", "--socket", "v.sock", "--cid", "9", "--log-format", "json")
	device.Dir = dir
	log := new(lockedBuffer)
	device.Stderr = log
	if err := device.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, device) })
	s := deviceRuns(t, path)
	if s.CID != 9 || s.PID != device.Process.Pid || s.Machine || s.Driver || s.Version == "" {
		t.Errorf("%+v", s)
	}
	status, _, stderr := invoke(t, dir, "device", "--socket", path, "--cid", "10")
	wantError(t, status, stderr, 1, path, "somebody already listens there")
	if again := deviceRuns(t, path); again != s {
		t.Errorf("the first device is %+v", again)
	}
	stop(t, device)
	for _, p := range []string{path, path + ".hybrid"} {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", p, err)
		}
	}
	if !strings.Contains(log.String(), "device started") || !strings.Contains(log.String(), "device stopped") {
		t.Errorf("the log:\n%s", log)
	}
}

func TestDeviceHelp(t *testing.T) {
	status, stdout, _ := invoke(t, newHome(t), "device", "--help")
	for _, want := range []string{
		"-object memory-backend-memfd,id=mem0,size=SIZE,share=on -machine q35,memory-backend=mem0 " +
			"-chardev socket,id=c0,path=PATH -device vhost-user-vsock-pci,chardev=c0",
		"PATH.hybrid", "--idle-exit", "--log-file",
	} {
		if status != 0 || !strings.Contains(stdout, want) {
			t.Errorf("status %d, and the help lacks %q", status, want)
		}
	}
}

func TestDeviceFails(t *testing.T) {
	home := newHome(t)
	file := filepath.Join(home, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string][]string{
		"device --cid 3":                                                    {"--socket PATH is missing", "--help"},
		"device --socket /x":                                                {"cid", "from 3 to", "--help"},
		"device --socket /x --cid 2":                                        {"from 3 to", "--help"},
		"device --socket /x --cid 1e3":                                      {"--cid", "--help"},
		"device --socket /x --cid 3 --idle-exit -1s":                        {"negative", "--help"},
		"device --socket /x --cid 3 extra":                                  {"extra", "--help"},
		"device --socket /" + strings.Repeat("long/", 20) + "sock --cid 3":  {".hybrid", "choose a shorter one", "--help"},
		"device --socket " + filepath.Join(file, "x") + " --cid 3":          {"not a directory"},
		"device --socket /proc/x --cid 3":                                   {"listen on /proc/x"},
		"device --socket " + filepath.Join(home, "none", "x") + " --cid 3":  {"no such file or directory"},
		"device --socket /x --cid 3 --log-file " + file + " --log-level so": {"so", "--help"},
		"up --link a=vhost-user:///x":                                       {"no context ID", "--help"},
		"up --link a=vhost-user:///x?cid=3&size=5":                          {"size", "--help"},
		"up --link a=vhost-user:///" + strings.Repeat("long/", 20) + "s?cid=3": {
			"choose a shorter one", "--help"},
		"up --link a=hybrid:///x":        {"no port", "--help"},
		"up --link a=hybrid:///x?port=0": {"names no port", "--help"},
	} {
		t.Run(args, func(t *testing.T) {
			status, _, stderr := invoke(t, home, strings.Fields(args)...)
			wantStatus := 1
			if want[len(want)-1] == "--help" {
				wantStatus = 2
			}
			wantError(t, status, stderr, wantStatus, want...)
		})
	}
}

// What fails in the background is in the log file, as well.
func TestDeviceLogFile(t *testing.T) {
	path := newDevicePath(t)
	log := filepath.Join(filepath.Dir(path), "logs", "device.log")
	status, _, stderr := invoke(t, newHome(t), "device", "--socket", "/proc/x", "--cid", "3", "--log-file", log)
	wantError(t, status, stderr, 1, "/proc/x")
	text, err := os.ReadFile(log)
	if !strings.Contains(string(text), "/proc/x") || err != nil {
		t.Errorf("the log has %q, %v", text, err)
	}
	status, _, stderr = invoke(t, newHome(t), "device", "--socket", path, "--cid", "3", "--idle-exit", "100ms", "--log-file", log)
	if status != 0 || stderr != "" {
		t.Errorf("a device that nobody used: %d, %s", status, stderr)
	}
	text, err = os.ReadFile(log)
	for _, want := range []string{"device started", "nobody uses the device", "device stopped"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the log lacks %q: %s, %v", want, text, err)
		}
	}
	if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log file: %v, %v", info, err)
	}
}
