package isolation

import (
	"os"

	"golang.org/x/sys/windows"
)

// DefaultLocations names the files on this host.
func DefaultLocations() Locations {
	dirs := Dirs{
		AppData:     knownFolder(windows.FOLDERID_RoamingAppData, "APPDATA"),
		ProgramData: knownFolder(windows.FOLDERID_ProgramData, "ProgramData"),
		UserProfile: knownFolder(windows.FOLDERID_Profile, "USERPROFILE"),
	}
	l := LocationsOn("windows", dirs)
	if dirs.AppData == "" {
		l.Unresolved = append(l.Unresolved, "%APPDATA% is not known")
	}
	if dirs.ProgramData == "" {
		l.Unresolved = append(l.Unresolved, "%ProgramData% is not known")
	}
	return l
}

// knownFolder asks Windows, and only then the environment: whoever starts us can
// write that.
func knownFolder(id *windows.KNOWNFOLDERID, variable string) string {
	if path, err := windows.KnownFolderPath(id, windows.KF_FLAG_DONT_VERIFY); err == nil {
		return path
	}
	return os.Getenv(variable)
}
