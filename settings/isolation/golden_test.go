package isolation

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// scenario names the files of a directory below testdata, as if they were on the
// system that its name starts with.
func scenario(dir string) Locations {
	goos, _, _ := strings.Cut(filepath.Base(dir), "-")
	if goos == "mac" {
		goos = "darwin"
	}
	l := Locations{
		OS:    goos,
		Users: []DesktopFiles{{Store: filepath.Join(dir, "settings-store.json"), Older: filepath.Join(dir, "settings.json")}},
		Admin: filepath.Join(dir, "admin-settings.json"),
	}
	if goos == "windows" {
		l.WSL = filepath.Join(dir, ".wslconfig")
	}
	return l
}

// describe writes a verdict down, with the directory of its files left out.
func describe(v Verdict, dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "state: %s\n", v.State)
	for _, f := range v.Findings {
		fmt.Fprintf(&b, "finding: %s\n", f)
	}
	for _, w := range v.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	if err := v.Refusal(); err != nil {
		fmt.Fprintf(&b, "refusal: %v\n", err)
	}
	return strings.ReplaceAll(b.String(), dir+string(filepath.Separator), "DIR/")
}

// G2: what is said about files as Docker Desktop and WSL have them, word for word.
func TestRealFiles(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join("testdata", "*-*"))
	if err != nil || len(dirs) < 20 {
		t.Fatalf("%d scenarios, %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var guests []Guest
			if strings.Contains(dir, "wsl") {
				guests = []Guest{{Link: "default", Kernel: "5.15.167.4-microsoft-standard-WSL2"}}
			}
			got := describe(Judge(Setting{}, scenario(dir).Read(), guests), dir)
			golden := filepath.Join(dir, "want.txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// G2: the refusal can be told from other errors, and tells all there is.
func TestRefusal(t *testing.T) {
	host := scenario(filepath.Join("testdata", "linux-4.13-admin-locked")).Read()
	own := Setting{On: true, Place: "settings /home/ada/.vmbridge/settings.yaml:12"}
	v := Judge(own, host, []Guest{
		{Link: "vm", Known: true, Findings: []GuestFinding{{SysboxProcess, "sysbox-mgr, pid 12"}, {ContainerRuntime, "web"}}},
		{Link: "quiet", Known: true},
	})
	var r *Refusal
	if err := v.Refusal(); !errors.As(err, &r) {
		t.Fatalf("got %v, want a *Refusal", err)
	}
	if len(r.Findings) != 3 || len(v.Findings) != 4 || len(v.Warnings) != 1 {
		t.Errorf("refusal %+v, verdict %+v", r, v)
	}
	text := r.Error()
	for _, want := range []string{
		"host networking and Enhanced Container Isolation exclude each other",
		"settings /home/ada/.vmbridge/settings.yaml:12: isolation.enhanced_container_isolation is true",
		"set isolation.enhanced_container_isolation to false",
		"admin-settings.json: enhancedContainerIsolation is true, locked by the administrator's testdata",
		"have the administrator set the value of enhancedContainerIsolation to false",
		"guest of link vm: sysbox is running: sysbox-mgr, pid 12",
		"stop the service sysbox in the guest",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	if strings.ContainsAny(text, "\n\r") || strings.Contains(text, "quiet") {
		t.Errorf("refusal: %q", text)
	}
	for _, state := range []State{Off, Unknown} {
		if err := (Verdict{State: state}).Refusal(); err != nil {
			t.Errorf("%s is refused: %v", state, err)
		}
	}
}
