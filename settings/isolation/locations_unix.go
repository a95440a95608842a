//go:build !windows

package isolation

import (
	"fmt"
	"os"
	"os/user"
	"runtime"
	"slices"
)

// DefaultLocations names the files on this host.
func DefaultLocations() Locations {
	homes, unresolved := homeDirs(os.Geteuid(), os.Getenv)
	l := LocationsOn(runtime.GOOS, Dirs{Homes: homes})
	l.Unresolved = unresolved
	return l
}

// homeDirs finds the home directories of the users whose Docker Desktop counts.
//
// Ours is $HOME, where Docker Desktop looks itself, and that of the user
// database, since a service may be started with another $HOME or none.
//
// Under sudo it is not root who sits at this machine and runs Docker Desktop,
// but the user who called sudo. $HOME may be that user's or root's, as sudo is configured,
// so the user database is asked.
func homeDirs(euid int, getenv func(string) string) (homes, unresolved []string) {
	add := func(home string) {
		if home != "" && !slices.Contains(homes, home) {
			homes = append(homes, home)
		}
	}
	add(getenv("HOME"))
	if u, err := user.Current(); err == nil { // without an entry there is $HOME
		add(u.HomeDir)
	}
	uid, name := getenv("SUDO_UID"), getenv("SUDO_USER")
	if euid == 0 && (uid != "" || name != "") {
		u, err := sudoer(uid, name)
		if err != nil {
			unresolved = append(unresolved, fmt.Sprintf("home directory not found: %v", err))
		} else {
			add(u.HomeDir)
		}
	}
	return homes, unresolved
}

// sudoer looks up the user who called sudo, first by number, which sudo does not
// abbreviate or translate.
func sudoer(uid, name string) (*user.User, error) {
	u, err := user.LookupId(uid)
	if err == nil {
		return u, nil
	}
	u, byName := user.Lookup(name)
	if byName == nil {
		return u, nil
	}
	return nil, fmt.Errorf("%w; %w", err, byName)
}
