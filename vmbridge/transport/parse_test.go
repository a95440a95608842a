package transport_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

func TestParse(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths are those of Unix")
	}
	long := "/" + strings.Repeat("x", transport.MaxSocketPath())
	device := long[:transport.MaxSocketPath()-len(".hybrid")]
	for _, tc := range []struct {
		url     string
		problem string // part of the error, or empty
		is      error
	}{
		{"unix:///run/vmbridge.sock", "", nil},
		{"unix:///run/with space/100%/a?b#c", "", nil},
		{"unix://" + long[:transport.MaxSocketPath()], "", nil},
		{"unix://" + long, "choose a shorter one", transport.ErrInvalid},
		{"unix://relative/path", "must be absolute", transport.ErrInvalid},
		{"unix:/run/x", "must be absolute", transport.ErrInvalid},
		{"unix:///run/", "names a directory", transport.ErrInvalid},
		{"unix://", "must be absolute", transport.ErrInvalid},
		{"unix:///a\x00b", "control character", transport.ErrInvalid},
		{"vsock://3:732", "", nil},
		{"vsock://:732", "", nil},
		{"vsock://4294967294:4294967294", "", nil},
		{"vsock://4294967295:1", "context ID", transport.ErrInvalid},
		{"vsock://3", "no port", transport.ErrInvalid},
		{"vsock://3:", `the port ""`, transport.ErrInvalid},
		{"vsock://3:99999999999", "the port", transport.ErrInvalid},
		{"vsock://web:732", `context ID "web"`, transport.ErrInvalid},
		{"vsock:3:732", "write vsock://CID:PORT", transport.ErrInvalid},
		{"tcp://127.0.0.1:732", "", nil},
		{"tcp://[::1]:732", "", nil},
		{"tcp://[fe80::1%eth0]:732", "", nil},
		{"tcp://vm.local:732", "", nil},
		{"tcp://vm.local", "missing port", transport.ErrInvalid},
		{"tcp://:732", "no host", transport.ErrInvalid},
		{"tcp://::1:732", "too many colons", transport.ErrInvalid},
		{"tcp://vm:65536", "not a number from 0 to 65535", transport.ErrInvalid},
		{"tcp://vm:http", `the port "http"`, transport.ErrInvalid},
		{"tcp://vm:732/path", "the port", transport.ErrInvalid},
		{"tcp://a/b:732", "not a host", transport.ErrInvalid},
		{"tcp:vm:732", "write tcp://HOST:PORT", transport.ErrInvalid},
		{"exec:ssh vm 'vmbridge-guest serve --stdio'", "", nil},
		{"exec:", "no command", transport.ErrInvalid},
		{"exec:  ", "no command", transport.ErrInvalid},
		{"stdio:", "", nil},
		{"stdio:x", "nothing may follow", transport.ErrInvalid},
		{"sandbox:", "", nil},
		{"sandbox:x", "nothing may follow", transport.ErrInvalid},
		{"hybrid:///run/fc.sock?port=732", "", nil},
		{"hybrid:///run/what?now?port=4294967294", "", nil},
		{"hybrid:///run/x?port=0", "", nil},
		{"hybrid://" + long[:transport.MaxSocketPath()] + "?port=1", "", nil},
		{"hybrid://" + long + "?port=1", "choose a shorter one", transport.ErrInvalid},
		{"hybrid:///run/x", "no port", transport.ErrInvalid},
		{"hybrid:///run/x?", "no port", transport.ErrInvalid},
		{"hybrid:///run/x?port=", `the port ""`, transport.ErrInvalid},
		{"hybrid:///run/x?port", `the port ""`, transport.ErrInvalid},
		{"hybrid:///run/x?port=4294967295", "not a number from 0 to 4294967294", transport.ErrInvalid},
		{"hybrid:///run/x?port=99999999999", "the port", transport.ErrInvalid},
		{"hybrid:///run/x?port=-1", "the port", transport.ErrInvalid},
		{"hybrid:///run/x?port=1&port=1", "twice", transport.ErrInvalid},
		{"hybrid:///run/x?port=1&", `unknown parameter ""`, transport.ErrInvalid},
		{"hybrid:///run/x?cid=3&port=1", `unknown parameter "cid"`, transport.ErrInvalid},
		{"hybrid:///run/x?Port=1", `unknown parameter "Port"`, transport.ErrInvalid},
		{"hybrid://run/x?port=1", "must be absolute", transport.ErrInvalid},
		{"hybrid:///run/?port=1", "names a directory", transport.ErrInvalid},
		{"vhost-user:///run/vm.sock?cid=3", "", nil},
		{"vhost-user:///run/vm.sock?cid=4294967294&port=733", "", nil},
		{"vhost-user://" + device + "?cid=3", "", nil},
		{"vhost-user://" + device + "x?cid=3", ".hybrid is needed", transport.ErrInvalid},
		{"vhost-user:///run/vm.sock", "no context ID", transport.ErrInvalid},
		{"vhost-user:///run/vm.sock?port=732", "no context ID", transport.ErrInvalid},
		{"vhost-user:///run/vm.sock?cid=2", "not a number from 3 to 4294967294", transport.ErrInvalid},
		{"vhost-user:///run/vm.sock?cid=4294967295", "the cid", transport.ErrInvalid},
		{"vhost-user:///run/vm.sock?cid=3&port=0", "the port", transport.ErrInvalid},
		{"vhost-user:///run/vm.sock?cid=3&cid=4", "twice", transport.ErrInvalid},
		{"vhost-user:///run/vm.sock?cid=3&size=1", `unknown parameter "size"`, transport.ErrInvalid},
		{"vhost-user:vm.sock?cid=3", "must be absolute", transport.ErrInvalid},
		{"docker://", "", nil},
		{"docker://desktop-linux", "", nil},
		{"docker:", "write docker://", transport.ErrInvalid},
		{"docker://a/b", `"a/b" is no name of a context`, transport.ErrInvalid},
		{"docker://-x", "no name of a context", transport.ErrInvalid},
		{"lima://", "", nil},
		{"lima://default", "", nil},
		{"colima://my.profile-2", "", nil},
		{"podman-machine://podman_machine", "", nil},
		{"wsl://Ubuntu-24.04", "", nil},
		{"lima:", "write lima://NAME, or lima:// for the default one", transport.ErrInvalid},
		{"colima:default", "write colima://PROFILE", transport.ErrInvalid},
		{"wsl://a b", "write wsl://DISTRO", transport.ErrInvalid},
		{"wsl://a;reboot", "is no name", transport.ErrInvalid},
		{"lima://$(reboot)", "is no name", transport.ErrInvalid},
		{"podman-machine://--help", "is no name", transport.ErrInvalid},
		{"lima://default/", "is no name", transport.ErrInvalid},
		{"lima://" + strings.Repeat("x", 256), "is no name", transport.ErrInvalid},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e:732", "", nil},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e:2147483647", "", nil},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e:2147483648", "not a number from 1 to 2147483647", transport.ErrInvalid},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e:0", `the port "0"`, transport.ErrInvalid},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e:", `the port ""`, transport.ErrInvalid},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e:1:2", `the port "1:2"`, transport.ErrInvalid},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e", "no port", transport.ErrInvalid},
		{"hyperv:0cb41c0b-fd26-4a41-8370-dccb048e216e:732", "write hyperv://VMID:PORT", transport.ErrInvalid},
		{"hyperv://0cb41c0bfd264a418370dccb048e216e:732", "not a GUID", transport.ErrInvalid},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216g:732", "not a GUID", transport.ErrInvalid},
		{"hyperv://{0cb41c0b-fd26-4a41-8370-dccb048e216e}:732", "not a GUID", transport.ErrInvalid},
		{"hyperv://x:732", `ID "x" is not a GUID`, transport.ErrInvalid},
		{"hyperv://:732", `ID "" is not a GUID`, transport.ErrInvalid},
		{"hyperv://00000000-0000-0000-0000-000000000000:732", "not that of one VM", transport.ErrInvalid},
		{"hyperv://A42E7CDA-D03F-480C-9CC2-A4DE20ABB878:732", "not that of one VM", transport.ErrInvalid},
		{"", "no scheme", transport.ErrInvalid},
		{"/run/vmbridge.sock", "no scheme", transport.ErrInvalid},
		{"http://vm", `unknown scheme "http"`, transport.ErrInvalid},
		{"UNIX:///x", `unknown scheme "UNIX"`, transport.ErrInvalid},
	} {
		e, err := transport.Parse(tc.url)
		if tc.problem == "" {
			if err != nil {
				t.Errorf("%q: %v", tc.url, err)
			} else if e.String() != tc.url {
				t.Errorf("%q: String gives %q", tc.url, e)
			}
			continue
		}
		switch {
		case err == nil:
			t.Errorf("%q: no error, want %q", tc.url, tc.problem)
		case !strings.Contains(err.Error(), tc.problem) || !errors.Is(err, tc.is):
			t.Errorf("%q: %v; want %q", tc.url, err, tc.problem)
		case strings.ContainsAny(err.Error(), "\n\x00"):
			t.Errorf("%q: the error is not one line: %q", tc.url, err)
		}
	}
}

func TestEnds(t *testing.T) {
	for _, tc := range []struct {
		url          string
		dial, listen string // part of the error, or empty
	}{
		{"vsock://:732", "write vsock://CID:732", ""},
		{"vsock://2:732", "is the host", ""},
		{"vsock://0:732", "is the host", ""},
		{"vsock://3:0", "names no port", ""},
		{"tcp://127.0.0.1:0", "names no port", ""},
		{"tcp://127.0.0.1:1", "", ""},
		{"stdio:", "is for the agent", ""},
		{"exec:true", "", "can only be dialled"},
		{"sandbox:", "no transport", "no transport"},
		{"docker://remote", "no transport", "no transport"},
		{"lima://", "no transport", "no transport"},
		{"wsl://x", "no transport", "no transport"},
		{"hybrid:///x?port=1", "", "can only be dialled"},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e:1", "", "can only be dialled"},
		{"hybrid:///x?port=0", "names no port", "can only be dialled"},
		{"vhost-user:///x?cid=3", "no transport", "no transport"},
	} {
		e := mustParse(tc.url)
		for _, c := range []struct {
			what, want string
			err        error
		}{{"CanDial", tc.dial, e.CanDial()}, {"CanListen", tc.listen, e.CanListen()}} {
			if c.want == "" && c.err != nil || c.want != "" && (!errors.Is(c.err, transport.ErrWrongEnd) || !strings.Contains(c.err.Error(), c.want)) {
				t.Errorf("%s.%s: %v; want %q", tc.url, c.what, c.err, c.want)
			}
		}
	}
	var none transport.Endpoint
	if _, err := none.Dial(testContext(t), transport.DialOptions{}); !errors.Is(err, transport.ErrInvalid) {
		t.Errorf("dialling no endpoint: %v", err)
	}
}

func TestEndpointProperties(t *testing.T) {
	for _, tc := range []struct {
		url      string
		one, key bool
		warning  bool
	}{
		{"unix:///x", false, true, false},
		{"hybrid:///x?port=1", false, true, false},
		{"vhost-user:///x?cid=3", false, true, false},
		{"vsock://3:732", false, true, false},
		{"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e:732", false, true, false},
		{"tcp://127.0.0.1:732", false, true, false},
		{"tcp://[::1]:732", false, true, false},
		{"tcp://localhost:732", false, true, false},
		{"tcp://192.0.2.1:732", false, true, true},
		{"tcp://vm:732", false, true, true},
		{"exec:cat", true, false, false},
		{"docker://", true, false, false},
		{"lima://", true, false, false},
		{"colima://x", true, false, false},
		{"podman-machine://", true, false, false},
		{"wsl://x", true, false, false},
		{"stdio:", true, false, false},
	} {
		e := mustParse(tc.url)
		if one := e.MaxConns() == 1; one != tc.one && runtime.NumCPU() > 1 {
			t.Errorf("%s: MaxConns %d", tc.url, e.MaxConns())
		}
		if e.NeedsKey() != tc.key {
			t.Errorf("%s: NeedsKey %v", tc.url, e.NeedsKey())
		}
		if (e.Warning() != "") != tc.warning {
			t.Errorf("%s: Warning %q", tc.url, e.Warning())
		}
	}
}

// A vhost-user URL says where QEMU connects, and leads to a hybrid socket beside it.
func TestVhostUserEndpoint(t *testing.T) {
	for url, hybrid := range map[string]string{
		"vhost-user:///run/vm?cid=3":          "hybrid:///run/vm.hybrid?port=732",
		"vhost-user:///run/vm?port=732&cid=3": "hybrid:///run/vm.hybrid?port=732",
		"vhost-user:///run/vm?cid=3&port=99":  "hybrid:///run/vm.hybrid?port=99",
	} {
		e := mustParse(url)
		if e.CID() != 3 || e.Path() != "/run/vm" || e.HybridEndpoint() != mustParse(hybrid) {
			t.Errorf("%s: CID %d at %s, dialled at %s", url, e.CID(), e.Path(), e.HybridEndpoint())
		}
	}
	for _, url := range []string{"hybrid:///x?port=1", "vsock://3:732"} {
		if e := mustParse(url); e.CID() != 0 || e.HybridEndpoint() != (transport.Endpoint{}) {
			t.Errorf("%s: CID %d, dialled at %s", url, e.CID(), e.HybridEndpoint())
		}
	}
}

// A GUID means the same in capitals, and is given back in one form.
func TestHyperVEndpoint(t *testing.T) {
	const id = "0cb41c0b-fd26-4a41-8370-dccb048e216e"
	e := mustParse("hyperv://" + strings.ToUpper(id) + ":732")
	if want := mustParse("hyperv://" + id + ":732"); e != want || e.VM() != id {
		t.Errorf("%s is not %s", e, want)
	}
	if runtime.GOOS == "windows" {
		return // it could reach a VM
	}
	_, err := e.Dial(testContext(t), transport.DialOptions{})
	if !errors.Is(err, transport.ErrUnsupported) || !strings.Contains(err.Error(), "need Windows") || strings.Contains(err.Error(), "\n") {
		t.Errorf("dialling: %v", err)
	}
}

// FuzzParse checks that a URL that is accepted is given back, and that an
// error is one line.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"unix:///run/x", "unix://x", "vsock://3:732", "vsock://:1", "vsock://2:", "tcp://[::1]:1", "tcp://a:0", "tcp://[a]:b:1",
		"exec:ssh vm x", "exec: \t", "stdio:", "sandbox:", "hybrid:///x?port=1", "docker://", "docker://x.y", "lima://", "wsl://a.b", "colima://a b", "podman-machine:/",
		"hyperv://0CB41C0B-fd26-4a41-8370-dccb048e216e:01", "hyperv://{0}:1",
		"hybrid:///x?y?port=01", "vhost-user:///x?cid=3", "vhost-user:///x?cid=3&port=9", "vhost-user:///x?port=&cid", ":", "", "unix:///\xff", "tcp://a b:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := transport.Parse(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b\x00") {
				t.Errorf("the error for %q is not one line: %q", s, err)
			}
			return
		}
		again, err := transport.Parse(e.String())
		if err != nil || again != e {
			t.Errorf("%q became %q, which is read as %q, %v", s, e, again, err)
		}
		_, _, _ = e.Warning(), e.CanDial(), e.CanListen()
		if h := e.HybridEndpoint(); e.Scheme() == transport.VhostUser {
			if again, err := transport.Parse(h.String()); err != nil || again != h {
				t.Errorf("%q leads to %q, which is read as %q, %v", s, h, again, err)
			}
		}
	})
}

// TestWay: what is run is what the products document, for one machine and for theirs.
func TestWay(t *testing.T) {
	for url, want := range map[string]transport.Way{
		"lima://":               {"", "limactl shell --workdir / default sudo sh", "limactl list"},
		"lima://dev":            {"", "limactl shell --workdir / dev sudo sh", "limactl list"},
		"colima://":             {"", "colima ssh -- sudo sh", "colima list"},
		"colima://dev":          {"", "colima ssh --profile dev -- sudo sh", "colima list"},
		"podman-machine://":     {"", "podman machine ssh sudo sh", "podman machine list"},
		"podman-machine://NAME": {"podman machine inspect NAME", "podman machine ssh NAME sudo sh", "podman machine list"},
		"wsl://":                {"", "wsl.exe -u root -- sh", "wsl.exe -l -v"},
		"wsl://Debian":          {"", "wsl.exe -d Debian -u root -- sh", "wsl.exe -l -v"},
	} {
		if got, ok := mustParse(url).Way(); !ok || got != want {
			t.Errorf("%s: %+v, %t", url, got, ok)
		}
	}
	if way, ok := mustParse("exec:sh").Way(); ok || way != (transport.Way{}) {
		t.Errorf("exec: %+v", way)
	}
}
