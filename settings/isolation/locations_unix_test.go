//go:build !windows

package isolation

import (
	"os"
	"os/user"
	"slices"
	"testing"
)

// Whoever calls sudo is the one whose Docker Desktop counts, by the user
// database and not by what the environment says about a home.
func TestHomeDirs(t *testing.T) {
	self, err := user.Current()
	if err != nil {
		t.Skipf("who we are is not known: %v", err)
	}
	other, err := user.LookupId("1") // daemon, on every system
	if err != nil {
		t.Skipf("no second user: %v", err)
	}
	for _, c := range []struct {
		name       string
		euid       int
		env        map[string]string
		homes      []string
		unresolved int
	}{
		{"ordinary", 1000, map[string]string{"HOME": "/home/ada"}, []string{"/home/ada", self.HomeDir}, 0},
		{"no HOME", 1000, nil, []string{self.HomeDir}, 0},
		{"twice the same", 1000, map[string]string{"HOME": self.HomeDir}, []string{self.HomeDir}, 0},
		{"sudo", 0, map[string]string{"HOME": "/x", "SUDO_UID": "1", "SUDO_USER": "nobody-of-that-name"}, []string{"/x", self.HomeDir, other.HomeDir}, 0},
		{"sudo, by name", 0, map[string]string{"SUDO_USER": other.Username}, []string{self.HomeDir, other.HomeDir}, 0},
		{"sudo, not root", 1000, map[string]string{"SUDO_UID": "1"}, []string{self.HomeDir}, 0},
		{"sudo, nobody", 0, map[string]string{"SUDO_UID": "3999999999", "SUDO_USER": "nobody-of-that-name"}, []string{self.HomeDir}, 1},
		{"sudo, strange", 0, map[string]string{"SUDO_UID": "../../etc"}, []string{self.HomeDir}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			homes, unresolved := homeDirs(c.euid, func(name string) string { return c.env[name] })
			if !slices.Equal(homes, slices.Compact(c.homes)) || len(unresolved) != c.unresolved {
				t.Errorf("got %q, %q, want %q", homes, unresolved, c.homes)
			}
		})
	}
	if os.Geteuid() != 0 {
		return
	}
	t.Setenv("SUDO_UID", "1")
	want := LocationsOn("linux", Dirs{Homes: []string{other.HomeDir}}).Users[0]
	if l := DefaultLocations(); l.OS == "linux" && !slices.Contains(l.Users, want) {
		t.Errorf("%+v is not in %+v", want, l.Users)
	}
}
