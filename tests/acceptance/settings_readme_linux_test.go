package acceptance

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
)

// What the README shows of the settings is what they are: every default, rules
// and a policy that vmbridge takes.
func TestReadmeSettings(t *testing.T) {
	t.Parallel()
	text, err := readFile(filepath.Join("..", "..", "README.md"))
	must(t, err)
	blocks := func(kind string) (all []string) {
		for _, m := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		return all
	}
	files, policies := blocks("yaml"), blocks("json")
	if len(files) != 2 || len(policies) != 1 {
		t.Fatalf("the README has %d files and %d policies", len(files), len(policies))
	}
	b := newBed(t, bedConfig{etc: true})
	list := func() control.Settings {
		t.Helper()
		out, err := b.vmbridge("settings", "list", "--json")
		must(t, err)
		var s control.Settings
		must(t, json.Unmarshal([]byte(out), &s))
		if len(s.Problems) > 0 {
			t.Errorf("%q", s.Problems)
		}
		return s
	}
	b.write(files[0])
	for _, v := range list().Values {
		if v.Origin != "file" || v.Value != v.Default {
			t.Errorf("the README has another default: %+v", v)
		}
	}
	b.write(files[1])
	if v := list().Values; !strings.Contains(joinValues(v), "host_port: 18080") {
		t.Errorf("%+v", v)
	}
	b.writePolicy(policies[0])
	for _, v := range list().Values {
		if strings.Contains(policies[0], `"`+v.Key+`"`) && v.Origin != "policy" {
			t.Errorf("the policy's %+v", v)
		}
	}
	b.exits(3, policyPath, "enable")
}

func joinValues(all []control.Setting) string {
	var text strings.Builder
	for _, v := range all {
		text.WriteString(v.Key + " is " + v.Value + "\n")
	}
	return text.String()
}
