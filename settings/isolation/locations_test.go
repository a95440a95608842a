package isolation

import (
	"slices"
	"testing"
)

func TestLocationsOn(t *testing.T) {
	for _, c := range []struct {
		goos string
		dirs Dirs
		want []string
	}{
		{"darwin", Dirs{Homes: []string{"/var/root", "/Users/ada"}}, []string{
			"/var/root/Library/Group Containers/group.com.docker/settings-store.json",
			"/var/root/Library/Group Containers/group.com.docker/settings.json",
			"/Users/ada/Library/Group Containers/group.com.docker/settings-store.json",
			"/Users/ada/Library/Group Containers/group.com.docker/settings.json",
			"/Library/Application Support/com.docker.docker/admin-settings.json",
		}},
		{"linux", Dirs{Homes: []string{"/home/ada/"}}, []string{
			"/home/ada/.docker/desktop/settings-store.json",
			"/home/ada/.docker/desktop/settings.json",
			"/usr/share/docker-desktop/admin-settings.json",
		}},
		{"linux", Dirs{Homes: []string{"/"}}, []string{
			"/.docker/desktop/settings-store.json",
			"/.docker/desktop/settings.json",
			"/usr/share/docker-desktop/admin-settings.json",
		}},
		{"linux", Dirs{}, []string{"/usr/share/docker-desktop/admin-settings.json"}},
		{"windows", Dirs{AppData: `C:\Users\ada\AppData\Roaming`, ProgramData: `C:\ProgramData`, UserProfile: `C:\Users\ada`}, []string{
			`C:\Users\ada\AppData\Roaming\Docker\settings-store.json`,
			`C:\Users\ada\AppData\Roaming\Docker\settings.json`,
			`C:\ProgramData\DockerDesktop\admin-settings.json`,
			`C:\Users\ada\.wslconfig`,
		}},
		{"windows", Dirs{}, nil},
	} {
		l := LocationsOn(c.goos, c.dirs)
		if got := l.Paths(); !slices.Equal(got, c.want) || l.OS != c.goos {
			t.Errorf("%s %+v:\n got %q\nwant %q", c.goos, c.dirs, got, c.want)
		}
	}
}

func TestDefaultLocations(t *testing.T) {
	l := DefaultLocations()
	if len(l.Users) == 0 || l.Admin == "" {
		t.Errorf("got %+v", l)
	}
	if again := DefaultLocations(); !slices.Equal(l.Paths(), again.Paths()) {
		t.Errorf("first %q, then %q", l.Paths(), again.Paths())
	}
}

// Whose files could not be named is not forgotten.
func TestUnresolved(t *testing.T) {
	v := Judge(Setting{}, Locations{OS: "linux", Unresolved: []string{"home directory not found: no\nsuch user"}}.Read(), nil)
	if len(v.Findings) != 1 || v.Findings[0].What != "home directory not found: no such user" || v.State != Unknown {
		t.Errorf("got %+v", v)
	}
}
