package discover

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unicode/utf16"
)

// install puts a program in the PATH, which has nothing else. It checks its command
// line, and then runs the rest of the script.
func install(t *testing.T, dir, name, wants, script string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the programs of this test are shell scripts")
	}
	text := "#!/bin/sh\n[ \"$*\" = '" + wants + "' ] || { echo \"called as $*\" >&2; exit 9; }\n" + script
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// What the products print was shortened to the fields that are read, and one more.
const (
	limaPrints = `cat <<END
{"name":"default","status":"Running","dir":"/Users/me/.lima/default","vmType":"vz"}
{"name":"old","status":"Stopped","dir":"/Users/me/.lima/old","vmType":"qemu"}
{"name":"colima-work","status":"Running","dir":"/Users/me/.lima/colima-work"}
END
`
	colimaPrints = `cat <<END
{"name":"default","status":"Running","arch":"aarch64","cpus":2,"runtime":"docker"}
{"name":"work","status":"Broken","arch":"aarch64","cpus":2,"runtime":"containerd"}
END
`
	podmanPrints = `cat <<END
[{"Name":"podman-machine-default","Default":true,"Running":false,"Starting":false,"VMType":"applehv"},
 {"Name":"two*","Default":false,"Running":true,"Starting":false,"VMType":"applehv"}]
END
`
)

// path makes the PATH of a test, on which cat is the only other program.
func path(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if err := os.Symlink("/bin/cat", filepath.Join(dir, "cat")); err != nil {
		t.Skip("no cat:", err)
	}
	return dir
}

func TestMachines(t *testing.T) {
	dir := path(t)
	if ways := machines(t.Context()); len(ways) > 0 {
		t.Errorf("nothing is installed, and found %+v", ways)
	}
	install(t, dir, "limactl", "list --format json", limaPrints)
	install(t, dir, "colima", "list --json", colimaPrints)
	install(t, dir, "podman", "machine list --format json", podmanPrints)
	install(t, dir, "wsl.exe", "--list --verbose", `[ "$WSL_UTF8" = 1 ] || exit 8
cat <<END
  NAME              STATE           VERSION
  docker-desktop    Running         2
* Ubuntu-24.04      Stopped         2
  Legacy            Stopped         1
END
`)
	want := []Candidate{
		{URL: "lima://default", What: "Lima's instance default", Reason: ""},
		{URL: "lima://old", What: "Lima's instance old", Reason: "it is stopped: limactl start old"},
		{URL: "lima://colima-work", What: "Lima's instance colima-work", Reason: "it is Colima's"},
		{URL: "colima://default", What: "Colima's profile default", Reason: ""},
		{URL: "colima://work", What: "Colima's profile work", Reason: "it is broken: colima start work"},
		{URL: "podman-machine://podman-machine-default", What: "Podman's machine podman-machine-default", Reason: "it is stopped: podman machine start podman-machine-default"},
		{URL: "podman-machine://two", What: "Podman's machine two", Reason: ""},
		{URL: "wsl://Ubuntu-24.04", What: "WSL's distribution Ubuntu-24.04", Reason: ""},
		{URL: "wsl://docker-desktop", What: "WSL's distribution docker-desktop", Reason: "it belongs to another product"},
		{URL: "wsl://Legacy", What: "WSL's distribution Legacy", Reason: "it is of WSL 1, which shares the network of Windows anyway"},
	}
	if got := machines(t.Context()); !reflect.DeepEqual(got, want) {
		for _, w := range got {
			t.Logf("%+v", w)
		}
		t.Errorf("want %+v", want)
	}
}

// A product that has no machine, that fails, or prints something else, is one line.
func TestNoMachines(t *testing.T) {
	for what, test := range map[string]struct{ script, reason string }{
		"none":    {"", "it has no virtual machine"},
		"fails":   {"echo first >&2; echo 'level=fatal msg=\"no home\"' >&2; exit 3", `limactl list --format json: exit status 3: level=fatal msg="no home"`},
		"no JSON": {"echo NAME STATUS", "limactl list --format json: read the list: "},
		"control": {`printf '{"name":"\033[1m'; exit 0`, "limactl list --format json: read the list: "},
	} {
		t.Run(what, func(t *testing.T) {
			install(t, path(t), "limactl", "list --format json", test.script)
			ways := machines(t.Context())
			if len(ways) != 1 || ways[0].URL != "" || !strings.HasPrefix(ways[0].Reason, test.reason) {
				t.Errorf("got %+v, want %s", ways, test.reason)
			}
		})
	}
}

func TestUTF16(t *testing.T) {
	text := "  NAME    STATUS           VERSION\r\n* Debian  Wird ausgeführt  2\r\n"
	encoded := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(text)) {
		encoded = append(encoded, byte(unit), byte(unit>>8))
	}
	for _, out := range [][]byte{encoded, encoded[2:], []byte(text)} {
		got, err := parseWSL(out)
		if want := []machine{{name: "Debian", running: true, state: "Wird ausgeführt"}}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

// FuzzLists: whatever a product prints is a list or an error.
func FuzzLists(f *testing.F) {
	for _, seed := range []string{limaPrints, podmanPrints, "[]", "null", "{}", "  NAME\n* a b 2\n", "\xff\xfe*\x00", `{"name":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		for _, p := range products {
			machines, err := p.parse(out)
			if err != nil && machines != nil || len(machines) > maxMachines {
				t.Errorf("%s: %d machines and %v", p.name, len(machines), err)
			}
		}
	})
}
