package dockeragent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// TestMayRemove: only one's own container is removed, and what nobody has started.
func TestMayRemove(t *testing.T) {
	s := spec{home: "laptop:/home", link: "vm"}
	for _, c := range []struct {
		name       string
		home, link string
		state      container.ContainerState
		age        time.Duration
		noLabels   bool
		other      bool
		says       string // empty where it may be removed
	}{
		{name: "own", home: s.home, link: s.link, state: container.StateRunning},
		{name: "another's", home: "other:/home", link: "vm", state: container.StateRunning, age: time.Hour,
			other: true, says: "home other:/home, link vm"},
		{name: "another's that ends", home: "other:/home", link: "vm", state: container.StateExited, age: time.Hour,
			other: true, says: "home other:/home"},
		{name: "another's that starts", home: "other:/home", link: "vm", state: container.StateCreated, age: time.Second,
			other: true, says: "home other:/home"},
		{name: "another's that never started", home: "other:/home", link: "vm", state: container.StateCreated, age: time.Hour},
		{name: "another link's", home: s.home, link: "twin", state: container.StateRunning,
			other: true, says: "link twin leads to it, too"},
		{name: "hostile", home: "\x1b[31m\n", link: strings.Repeat("x", 1<<16), state: container.StateRunning,
			other: true, says: "home \ufffd[31m, link xxx"},
		{name: "nobody's", noLabels: true, state: container.StateRunning, says: "docker rename"},
	} {
		found := container.InspectResponse{
			Created: time.Now().Add(-c.age).UTC().Format(time.RFC3339Nano),
			State:   &container.State{Status: c.state},
			Config:  &container.Config{Labels: map[string]string{labelAgent: "x", labelHome: c.home, labelLink: c.link}},
		}
		if c.noLabels {
			found.Config.Labels = nil
		}
		err := s.mayRemove(found)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrOther) != c.other):
			t.Errorf("%s: %v", c.name, err)
		case err != nil && len(err.Error()) > 2*maxText:
			t.Errorf("%s: the error has %d bytes", c.name, len(err.Error()))
		}
	}
}

func TestIsolation(t *testing.T) {
	for _, c := range []struct {
		info  system.Info
		kinds []string
	}{
		{system.Info{DefaultRuntime: "runc", SecurityOptions: []string{"name=seccomp,profile=default", "name=cgroupns"}}, nil},
		{system.Info{SecurityOptions: []string{"name=seccomp,profile=builtin", "name=userns"}}, []string{message.IsolationEngineUserNamespace}},
		{system.Info{SecurityOptions: []string{"name=rootless"}}, []string{message.IsolationEngineRootless}},
		{system.Info{DefaultRuntime: "sysbox-runc", SecurityOptions: []string{"rootless,x"}},
			[]string{message.IsolationDefaultRuntime, message.IsolationEngineRootless}},
	} {
		c.info.Name = "vm\x1b[31m"
		found := isolation(c.info)
		var kinds []string
		for _, f := range found {
			kinds = append(kinds, f.Kind)
			if !strings.Contains(f.Detail, "vm\ufffd[31m") {
				t.Errorf("%+v: detail %q", c.info, f.Detail)
			}
		}
		if strings.Join(kinds, " ") != strings.Join(c.kinds, " ") {
			t.Errorf("%+v: found %q, want %q", c.info.SecurityOptions, kinds, c.kinds)
		}
	}
}
