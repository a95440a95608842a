package isolation

import "fmt"

// A Host is the host's evidence.
type Host struct {
	OS       string // the host's system, as runtime.GOOS names it
	Findings []Finding
	Warnings []string
	WSL      WSLConfig
}

// Read reads all files. It takes no longer than reading them, and a moment more
// when one is being written.
func (l Locations) Read() Host {
	h := Host{OS: l.OS, WSL: readWSLConfig(l.WSL)}
	for _, why := range l.Unresolved {
		h.Findings = append(h.Findings, Finding{State: Unknown, Where: "settings of Docker Desktop", What: why})
	}
	admin := load(l.Admin)
	users := make([]desktopUser, len(l.Users))
	for i, u := range l.Users {
		users[i] = desktopUser{store: load(u.Store), older: load(u.Older)}
	}
	for _, o := range resolve(isolationKey, admin, users) {
		h.Findings = append(h.Findings, Finding{State: o.state, Where: o.from.path, What: o.what,
			LockedBy: o.lockedBy(), Remedy: isolationRemedy(l.OS, o)})
	}
	for _, o := range resolve(hostNetworkingKey, admin, users) {
		if o.state == On {
			h.Warnings = append(h.Warnings, fmt.Sprintf(
				"Docker Desktop's own host networking is on as well (%s: %s), so two forwarders want each port: %s",
				o.from.path, o.what, hostNetworkingRemedy(l.OS, o)))
		}
	}
	return h
}

// lockedBy names who locked a setting.
func (o outcome) lockedBy() string {
	switch {
	case o.rank == lockedByAdmin:
		return "the administrator's " + o.from.path
	case o.lock:
		return "the administrator, as this file says"
	}
	return ""
}

// settingsMenu says where Docker Desktop shows its settings.
func settingsMenu(goos string) string {
	switch goos {
	case "darwin":
		return "Docker Desktop (the whale in the menu bar) > Settings"
	case "windows":
		return "Docker Desktop (the whale in the notification area) > Settings"
	}
	return "Docker Desktop > Settings"
}

// isolationSwitch says where ECI is turned off, in the words of Docker Desktop.
func isolationSwitch(goos string) string {
	return "clear \"Use Enhanced Container Isolation\" in " + settingsMenu(goos) + " > General, and select Apply and restart"
}

func isolationRemedy(goos string, o outcome) string {
	if o.state == Off {
		return ""
	}
	if o.state == Unknown {
		return unknownRemedy(goos, o)
	}
	return toggleRemedy(o, isolationKey, isolationSwitch(goos))
}

func hostNetworkingRemedy(goos string, o outcome) string {
	return toggleRemedy(o, hostNetworkingKey,
		"clear \"Enable host networking\" in "+settingsMenu(goos)+" > Resources > Network, and select Apply and restart")
}

// toggleRemedy says how a setting of Docker Desktop that is on is turned off.
func toggleRemedy(o outcome, key, inSettings string) string {
	switch {
	case o.rank == lockedByAdmin:
		return fmt.Sprintf("have the administrator set the value of %s to false in %s, then quit Docker Desktop and start it again (its Restart is not enough)",
			key, o.from.path)
	case o.lock:
		return "have the administrator turn it off in the settings management of Docker Desktop"
	case o.rank == defaultByAdmin:
		return fmt.Sprintf("%s; or, when it is off there, have the administrator change the default in %s", inSettings, o.from.path)
	case o.rank == leftBehind:
		return fmt.Sprintf("%s; or, when Docker Desktop is 4.35 or later and it is off there, delete %s, which an earlier version left behind",
			inSettings, o.from.path)
	}
	return inSettings
}

// unknownRemedy says how a file could be made to tell.
func unknownRemedy(goos string, o outcome) string {
	switch {
	case o.from.denied && goos == "darwin":
		return "let the user that runs vmbridge read it (file permissions, and System Settings > Privacy & Security)"
	case o.from.denied:
		return "let the user that runs vmbridge read it"
	case o.rank == defaultByAdmin && !o.silent:
		return "have the administrator correct it"
	}
	return "look in " + settingsMenu(goos) + " > General, \"Use Enhanced Container Isolation\""
}
