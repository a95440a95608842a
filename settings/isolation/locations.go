package isolation

import "strings"

// Locations names the files that hold evidence.
type Locations struct {
	OS    string         // the host's system, as runtime.GOOS names it
	Users []DesktopFiles // Docker Desktop's settings of each user that counts
	Admin string         // Docker Desktop's admin-settings.json of the machine
	WSL   string         // .wslconfig, empty where there is no WSL

	// Unresolved says whose files could not be named, and why.
	Unresolved []string
}

// DesktopFiles are one user's settings of Docker Desktop.
type DesktopFiles struct {
	Store string // settings-store.json, of Docker Desktop 4.35 and later
	Older string // settings.json, of earlier ones
}

// Dirs are the directories that the files are below.
type Dirs struct {
	Homes       []string // home directories of the users that count (not on Windows)
	AppData     string   // %APPDATA% (Windows)
	ProgramData string   // %ProgramData% (Windows)
	UserProfile string   // %USERPROFILE% (Windows)
}

// LocationsOn names the files on a host with the given system. It looks at
// nothing, so it can be asked about other systems than this one.
func LocationsOn(goos string, dirs Dirs) Locations {
	l := Locations{OS: goos}
	switch goos {
	case "windows":
		if dirs.AppData != "" {
			l.Users = []DesktopFiles{desktopFiles(dirs.AppData + `\Docker\`)}
		}
		if dirs.ProgramData != "" {
			l.Admin = dirs.ProgramData + `\DockerDesktop\admin-settings.json`
		}
		if dirs.UserProfile != "" {
			l.WSL = dirs.UserProfile + `\.wslconfig`
		}
	case "darwin":
		for _, home := range dirs.Homes {
			l.Users = append(l.Users, desktopFiles(below(home, "Library/Group Containers/group.com.docker/")))
		}
		l.Admin = "/Library/Application Support/com.docker.docker/admin-settings.json"
	default:
		for _, home := range dirs.Homes {
			l.Users = append(l.Users, desktopFiles(below(home, ".docker/desktop/")))
		}
		l.Admin = "/usr/share/docker-desktop/admin-settings.json"
	}
	return l
}

func below(home, rest string) string {
	return strings.TrimRight(home, "/") + "/" + rest
}

func desktopFiles(dir string) DesktopFiles {
	return DesktopFiles{Store: dir + "settings-store.json", Older: dir + "settings.json"}
}

// Paths lists all files, whether they exist or not.
func (l Locations) Paths() []string {
	var paths []string
	for _, u := range l.Users {
		paths = append(paths, u.Store, u.Older)
	}
	if l.Admin != "" {
		paths = append(paths, l.Admin)
	}
	if l.WSL != "" {
		paths = append(paths, l.WSL)
	}
	return paths
}
