package isolation

import (
	"strings"
	"unicode"
)

// A State is what a finding or a verdict says about Enhanced Container Isolation.
type State string

const (
	On      State = "on"
	Off     State = "off"
	Unknown State = "unknown"
)

// A Finding is one piece of evidence.
type Finding struct {
	State    State
	Where    string // a file, a place in our settings, or a guest
	What     string // what was seen there
	LockedBy string // who locked it, empty when nobody did
	Remedy   string // what would resolve it, empty when there is nothing to resolve
}

// String gives the whole finding in one line.
func (f Finding) String() string {
	return string(f.State) + ": " + f.text()
}

func (f Finding) text() string {
	s := f.Where + ": " + f.What
	if f.LockedBy != "" {
		s += ", locked by " + f.LockedBy
	}
	switch {
	case f.Remedy == "":
	case f.State == Unknown:
		s += "; to find out, " + f.Remedy
	default:
		s += "; to resolve it, " + f.Remedy
	}
	return oneLine(s)
}

// oneLine keeps what came from a file or a guest from writing lines, or
// controlling the terminal, of who reads it.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// A Setting is isolation.enhanced_container_isolation of our own settings. False
// says nothing: it is the default, and nobody turns ECI off with it.
type Setting struct {
	On       bool
	Place    string // where it is set, as "settings FILE:LINE"
	LockedBy string // who locked it, empty when nobody did
}

// A Kind says what sort of thing an agent has found.
type Kind string

// The kinds travel in the link's messages, so these strings are fixed.
const (
	DefaultRuntime   Kind = "default_runtime"   // sysbox is the engine's default runtime
	ContainerRuntime Kind = "container_runtime" // one running container has sysbox as its runtime
	SysboxProcess    Kind = "sysbox_process"    // sysbox-mgr or sysbox-fs is running
	UserNamespace    Kind = "user_namespace"    // the agent's uid_map is not the identity

	// What an engine tells that is to run the agent, and does not.
	EngineUserNamespace Kind = "engine_user_namespace" // it gives containers a user namespace
	EngineRootless      Kind = "engine_rootless"       // it is in one itself
	EngineUnprivileged  Kind = "engine_unprivileged"   // it forbids containers with privileges
)

// A GuestFinding is one thing an agent has found.
type GuestFinding struct {
	Kind   Kind
	Detail string
}

// A Guest is what the agent of a link has told.
type Guest struct {
	Link       string
	Kernel     string   // release, as uname tells it
	Known      bool     // the agent has told
	Incomplete []string // what it could not look at, with the reason
	Findings   []GuestFinding
}
