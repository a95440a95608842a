package isolation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseWSLConfig(t *testing.T) {
	for _, c := range []struct{ name, text, mode, forwarding string }{
		{"empty", "", "", ""},
		{"mode", "[wsl2]\nnetworkingMode=mirrored\n", "mirrored", ""},
		{"any case", "[WSL2]\nNETWORKINGMODE = Mirrored\nLOCALHOSTFORWARDING=FALSE", "mirrored", "false"},
		{"earlier section", "[experimental]\nnetworkingMode=mirrored\n", "mirrored", ""},
		{"first counts", "[wsl2]\nlocalhostForwarding=false\nlocalhostForwarding=true\n", "", "false"},
		{"first counts across sections", "[wsl2]\nnetworkingMode=nat\n[experimental]\nnetworkingMode=mirrored\n", "nat", ""},
		{"other section", "[experimental]\nlocalhostForwarding=false\n[user]\nnetworkingMode=mirrored\n", "", ""},
		{"no section", "networkingMode=mirrored\n", "", ""},
		{"comments", "#[wsl2]\n; x\n[wsl2] # main\n#networkingMode=none\n;networkingMode=none\n  networkingMode = nat # not mirrored\n", "nat", ""},
		{"a semicolon belongs to the value", "[wsl2]\nlocalhostForwarding=false ; off\n", "", "false ; off"},
		{"quotes", "[wsl2]\nnetworkingMode=\"mirrored\" # yes\nlocalhostForwarding=\"#\"\n", "mirrored", "#"},
		{"open quote", "[wsl2]\nnetworkingMode=\"mirrored\n", "", ""},
		{"line ends of Windows", "[wsl2]\r\nnetworkingMode=none\r\nlocalhostForwarding=false\r\n", "none", "false"},
		{"bad lines are skipped", "[wsl2]\n[broken\n=\nx\n[also] broken\nnetworkingMode=none", "none", ""},
		{"spaces", "\t[wsl2]\t\n\tnetworkingMode\t=\tvirtioproxy\t", "virtioproxy", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for form, data := range map[string][]byte{
				"UTF-8": []byte(c.text), "UTF-8 with a mark": []byte("\ufeff" + c.text), "UTF-16": utf16le(c.text),
			} {
				got := parseWSLConfig(text(data))
				if want := (WSLConfig{NetworkingMode: c.mode, LocalhostForwarding: c.forwarding}); got != want {
					t.Errorf("%s: got %+v, want %+v", form, got, want)
				}
			}
		})
	}
}

// WSL's forwarding matters only to guests of WSL, and where WSL can be.
func TestWSLWarning(t *testing.T) {
	const wslKernel, other = "6.6.87.2-microsoft-standard-WSL2", "6.12.54-linuxkit"
	path := filepath.Join(t.TempDir(), ".wslconfig")
	for _, c := range []struct {
		name, goos, text, kernel string // "absent" writes no file
		want                     []string
	}{
		{"no file", "windows", "absent", wslKernel, []string{"localhostForwarding is true by default", "set localhostForwarding=false below [wsl2] in " + path, "wsl --shutdown"}},
		{"empty file", "windows", "", wslKernel, []string{"localhostForwarding is true by default"}},
		{"another guest", "windows", "absent", other, nil},
		{"no kernel known", "windows", "absent", "", nil},
		{"small letters", "windows", "absent", strings.ToLower(wslKernel), []string{"guest of link vm: "}},
		{"another host", "linux", "absent", wslKernel, nil},
		{"another host with the file", "linux", "[wsl2]\n", wslKernel, []string{"localhostForwarding is true by default"}},
		{"on", "windows", "[wsl2]\nlocalhostForwarding=true\n", wslKernel, []string{"localhostForwarding=true in " + path}},
		{"off", "windows", "[wsl2]\nlocalhostForwarding=false\n", wslKernel, nil},
		{"off, as a number", "windows", "[wsl2]\nlocalhostForwarding=0\n", wslKernel, nil},
		{"strange", "windows", "[wsl2]\nlocalhostForwarding=never\n", wslKernel, []string{`localhostForwarding="never"`, "so it is true"}},
		{"mirrored", "windows", "[wsl2]\nnetworkingMode=mirrored\nlocalhostForwarding=false\n", wslKernel,
			[]string{"networkingMode=mirrored in " + path, "set networkingMode=nat and localhostForwarding=false below [wsl2] in " + path}},
		{"no network", "windows", "[wsl2]\nnetworkingMode=none\n", wslKernel, nil},
		{"unknown mode", "windows", "[wsl2]\nnetworkingMode=magic\n", wslKernel, []string{"localhostForwarding is true by default"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if c.text != "absent" {
				write(t, path, c.text)
			}
			v := Judge(Setting{}, Locations{OS: c.goos, WSL: path}.Read(), []Guest{{Link: "vm", Kernel: c.kernel}})
			if v.Refusal() != nil || v.State != Unknown {
				t.Errorf("verdict %+v", v)
			}
			if len(c.want) == 0 {
				if len(v.Warnings) != 0 {
					t.Errorf("warns %q", v.Warnings)
				}
				return
			}
			if len(v.Warnings) != 1 {
				t.Fatalf("warns %q", v.Warnings)
			}
			for _, want := range c.want {
				if !strings.Contains(v.Warnings[0], want) {
					t.Errorf("%q is not in %q", want, v.Warnings[0])
				}
			}
		})
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	guests := []Guest{{Link: "a", Kernel: wslKernel}, {Link: "b", Kernel: other}, {Link: "c", Kernel: wslKernel}}
	v := Judge(Setting{}, Locations{OS: "windows", WSL: path}.Read(), guests)
	if len(v.Warnings) != 1 || !strings.HasPrefix(v.Warnings[0], "guest of link a, c: "+path+" cannot be read: it is a directory") {
		t.Errorf("a directory: %q", v.Warnings)
	}
	if w := Judge(Setting{}, Host{OS: "windows"}, guests).Warnings; len(w) != 1 || !strings.Contains(w[0], `%USERPROFILE%\.wslconfig`) {
		t.Errorf("a path that is not known: %q", w)
	}
}
