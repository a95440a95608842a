package isolation

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files of the tables, by a word for each.
var adminFiles = map[string]string{
	"silent":      `{"configurationFileVersion": 2}`,
	"locked on":   `{"enhancedContainerIsolation": {"locked": true, "value": true}}`,
	"locked off":  `{"enhancedContainerIsolation": {"locked": true, "value": false}}`,
	"default on":  `{"enhancedContainerIsolation": {"locked": false, "value": true}}`,
	"default off": `{"enhancedContainerIsolation": {"locked": false, "value": false}}`,
	"no value":    `{"enhancedContainerIsolation": {"locked": true}}`,
	"broken":      `{"enhancedContainerIsolation"; true}`,
}

var userFiles = map[string]string{
	"silent": `{"AutoStart": true}`,
	"on":     `{"EnhancedContainerIsolation": true}`,
	"off":    `{"EnhancedContainerIsolation": false}`,
	"broken": `{"EnhancedContainerIsolation": true]`,
}

// lay writes files into a directory; "absent" writes none.
func lay(t testing.TB, admin, store, older string) Locations {
	l := scenario(filepath.Join(t.TempDir(), "linux-"))
	if err := os.Mkdir(filepath.Dir(l.Admin), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		l.Admin: adminFiles[admin], l.Users[0].Store: userFiles[store], l.Users[0].Older: userFiles[older],
	} {
		if text != "" {
			write(t, path, text)
		}
	}
	return l
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// brief is the verdict's state, then each finding's state and file.
func brief(v Verdict) string {
	s := string(v.State)
	for _, f := range v.Findings {
		s += fmt.Sprintf(", %s %s", f.State, strings.TrimSuffix(filepath.Base(f.Where), ".json"))
	}
	return s
}

// G2: which file counts.
func TestPrecedence(t *testing.T) {
	const admin, store, older = "admin-settings", "settings-store", "settings"
	for _, c := range []struct{ admin, store, older, want string }{
		{"absent", "absent", "absent", "unknown"},
		{"absent", "silent", "absent", "unknown, unknown " + store},
		{"absent", "absent", "silent", "unknown, unknown " + older},
		{"absent", "silent", "silent", "unknown, unknown " + store},
		{"silent", "absent", "absent", "unknown, unknown " + admin},
		{"silent", "silent", "absent", "unknown, unknown " + store},
		{"silent", "on", "absent", "on, on " + store},
		{"absent", "off", "absent", "off, off " + store},
		{"absent", "absent", "on", "on, on " + older},
		{"absent", "absent", "off", "off, off " + older},
		{"absent", "off", "on", "off, off " + store},
		{"absent", "on", "off", "on, on " + store},
		{"absent", "silent", "on", "on, on " + older + ", unknown " + store},
		{"absent", "silent", "off", "unknown, unknown " + store + ", off " + older},
		{"absent", "broken", "absent", "unknown, unknown " + store},
		{"absent", "broken", "on", "on, on " + older + ", unknown " + store},
		{"absent", "off", "broken", "off, off " + store},
		{"locked on", "off", "off", "on, on " + admin},
		{"locked on", "absent", "absent", "on, on " + admin},
		{"locked off", "on", "on", "off, off " + admin},
		{"locked off", "broken", "absent", "off, off " + admin},
		{"default on", "absent", "absent", "on, on " + admin},
		{"default on", "silent", "absent", "on, on " + admin},
		{"default on", "off", "absent", "off, off " + store},
		{"default on", "absent", "off", "off, off " + older},
		{"default on", "broken", "absent", "on, on " + admin + ", unknown " + store},
		{"default off", "silent", "absent", "off, off " + admin},
		{"default off", "on", "absent", "on, on " + store},
		{"default off", "broken", "absent", "unknown, unknown " + store + ", off " + admin},
		{"broken", "off", "absent", "unknown, unknown " + admin + ", off " + store},
		{"broken", "on", "absent", "on, on " + store + ", unknown " + admin},
		{"no value", "off", "absent", "unknown, unknown " + admin + ", off " + store},
	} {
		t.Run(fmt.Sprintf("admin %s, store %s, older %s", c.admin, c.store, c.older), func(t *testing.T) {
			if got := brief(Judge(Setting{}, lay(t, c.admin, c.store, c.older).Read(), nil)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Every combination of files, against the rules said once more.
func TestEveryCombination(t *testing.T) {
	decided := func(file string) bool { return file == "on" || file == "off" }
	rule := func(admin, store, older string) State {
		switch admin {
		case "locked on":
			return On
		case "locked off":
			return Off
		}
		badAdmin := admin == "broken" || admin == "no value"
		hasDefault := admin == "default on" || admin == "default off"
		defaultCounts := !decided(store) && (store != "absent" || !decided(older))
		switch {
		case store == "on", !decided(store) && older == "on", admin == "default on" && defaultCounts:
			return On
		case badAdmin, store == "broken", !decided(store) && older == "broken",
			defaultCounts && !hasDefault: // nobody says, or there is nothing at all
			return Unknown
		}
		return Off
	}
	words := func(files map[string]string) []string {
		list := []string{"absent"}
		for word := range files {
			list = append(list, word)
		}
		return list
	}
	for _, admin := range words(adminFiles) {
		for _, store := range words(userFiles) {
			for _, older := range words(userFiles) {
				v := Judge(Setting{}, lay(t, admin, store, older).Read(), nil)
				if want := rule(admin, store, older); v.State != want {
					t.Errorf("admin %s, store %s, older %s: %s, want %s", admin, store, older, brief(v), want)
				}
				if (v.Refusal() != nil) != (v.State == On) {
					t.Errorf("admin %s, store %s, older %s: %v", admin, store, older, v.Refusal())
				}
			}
		}
	}
}

// With several users, each one's files are judged alone.
func TestSeveralUsers(t *testing.T) {
	a, b := lay(t, "default off", "silent", "absent"), lay(t, "absent", "on", "absent")
	l := Locations{OS: "linux", Users: append(a.Users, b.Users...), Admin: a.Admin}
	v := Judge(Setting{}, l.Read(), nil)
	if got, want := brief(v), "on, on settings-store, off admin-settings"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if v.Findings[0].Where != b.Users[0].Store {
		t.Errorf("found in %s", v.Findings[0].Where)
	}
}

// Docker Desktop's own host networking only warns, by the same precedence.
func TestHostNetworkingOfDockerDesktop(t *testing.T) {
	const on, off = `{"HostNetworkingEnabled": true}`, `{"hostNetworkingEnabled": false}`
	const lockedOn = `{"hostNetworkingEnabled": {"locked": true, "value": true}}`
	const lockedOff = `{"hostNetworkingEnabled": {"locked": true, "value": false}}`
	for _, c := range []struct{ name, admin, store, older, want string }{
		{"store", "", on, "", "settings-store.json: HostNetworkingEnabled is true"},
		{"older", "", "", `{"hostNetworkingEnabled": true}`, "settings.json: hostNetworkingEnabled is true"},
		{"off", "", off, "", ""},
		{"silent", "", "{}", "", ""},
		{"store outranks older", "", off, on, ""},
		{"forced", lockedOn, off, "", "admin-settings.json: hostNetworkingEnabled is true"},
		{"forced, nobody installed", lockedOn, "", "", "admin-settings.json: hostNetworkingEnabled is true"},
		{"forbidden", lockedOff, on, "", ""},
		{"strange", "", `{"HostNetworkingEnabled": 1}`, "", ""},
		{"broken", "", `{"HostNetworkingEnabled": true`, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lay(t, "absent", "absent", "absent")
			for path, text := range map[string]string{l.Admin: c.admin, l.Users[0].Store: c.store, l.Users[0].Older: c.older} {
				if text != "" {
					write(t, path, text)
				}
			}
			v := Judge(Setting{}, l.Read(), nil)
			if c.want == "" {
				if len(v.Warnings) != 0 {
					t.Errorf("warns: %q", v.Warnings)
				}
				return
			}
			if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], c.want) || v.Refusal() != nil {
				t.Errorf("warns %q, want %q; refuses %v", v.Warnings, c.want, v.Refusal())
			}
		})
	}
}
