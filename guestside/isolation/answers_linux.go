package isolation

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/vmbridge/vmbridge/guestside/engine"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// sysboxRuntime is the runtime of Enhanced Container Isolation.
const sysboxRuntime = "sysbox-runc"

const (
	// maxContainers bounds the containers of an engine that are asked about.
	maxContainers = 1024
	// askTime bounds the questions after one event.
	askTime = 5 * time.Second
)

// questions are what an event can have changed the answers to.
type questions uint32

const (
	askInfo questions = 1 << iota
	askContainers
	askAll = askInfo | askContainers
)

func questionsAfter(e engine.Event) questions {
	switch e.Type {
	case "daemon":
		return askInfo
	case "container":
		return askContainers
	}
	return askAll
}

// answers are what an engine has told.
type answers struct {
	info       info
	containers map[string]container // the running ones, by id
	more       bool                 // containers than these
}

// info is what the engine says of itself.
type info struct {
	DefaultRuntime string
	Runtimes       map[string]struct {
		Path    string
		Options struct{ BinaryName string } // of runtimes that are containerd's shims
	}
}

// isSysbox tells what a runtime's name stands for.
func (i info) isSysbox(runtime string) bool {
	r := i.Runtimes[runtime]
	return runtime == sysboxRuntime || path.Base(r.Path) == sysboxRuntime || path.Base(r.Options.BinaryName) == sysboxRuntime
}

// runtime describes a runtime.
func (i info) runtime(name string) string {
	if r := i.Runtimes[name]; name != sysboxRuntime {
		return fmt.Sprintf("%s (%s)", name, r.Path+r.Options.BinaryName)
	}
	return name
}

// container is one that runs. Its runtime does not change.
type container struct{ name, runtime string }

// ask asks the engine and tells the watcher. What was answered before an error
// holds.
func (f *followed) ask(ctx context.Context, what questions) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if what&askInfo != 0 {
		var now info
		if err := engine.Get(ctx, f.socket, "/info", &now); err != nil {
			return err
		}
		if now.DefaultRuntime == "" {
			return errors.New("ask /info: the answer names no default runtime")
		}
		f.answers.info = now
		if what&askContainers != 0 {
			f.tellFindings() // at once: containers can be many
		}
	}
	if what&askContainers != 0 {
		if err := f.askContainers(ctx); err != nil {
			return err
		}
	}
	f.tell(f.answers.evidence(f.socket))
	return nil
}

// askContainers asks what runs, and with which runtime.
func (f *followed) askContainers(ctx context.Context) error {
	running := map[string]container{}
	type listed struct {
		ID    string
		Names []string
	}
	more, err := engine.Each(ctx, f.socket, "/containers/json", maxContainers, func(c listed) {
		name := c.ID
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		running[c.ID] = container{name: message.Clean(name, maxText)}
	})
	if err != nil {
		return err
	}
	known := f.answers.containers
	f.answers.containers, f.answers.more = map[string]container{}, more
	// The list lags behind the end of a container, which an inspection waits for:
	// one that counts is looked at each time.
	asIs := func(id string) bool {
		c, ok := known[id]
		return ok && !f.answers.info.isSysbox(c.runtime)
	}
	for id := range running {
		if asIs(id) {
			f.answers.containers[id] = known[id]
		}
	}
	for id, c := range running {
		if asIs(id) || !isID(id) {
			continue
		}
		var inspected struct {
			HostConfig struct{ Runtime string }
			State      struct{ Running bool }
		}
		err := engine.Get(ctx, f.socket, "/containers/"+id+"/json", &inspected)
		switch {
		case errors.Is(err, engine.ErrNotFound): // it has just ended
			continue
		case err != nil:
			return err
		case !inspected.State.Running:
			continue
		}
		c.runtime = message.Clean(inspected.HostConfig.Runtime, maxText)
		f.answers.containers[id] = c
	}
	return nil
}

// isID tells whether a string is an id, and so may be part of a question.
func isID(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// tellFindings tells what was found, and leaves what could not be looked at.
func (f *followed) tellFindings() {
	now := f.answers.evidence(f.socket)
	f.watcher.mu.Lock()
	now.incomplete = f.evidence.incomplete
	f.watcher.mu.Unlock()
	f.tell(now)
}

// evidence is what the answers show.
func (a answers) evidence(socket string) evidence {
	var e evidence
	if a.info.isSysbox(a.info.DefaultRuntime) {
		e.found(message.IsolationDefaultRuntime, "%s, engine at %s", a.info.runtime(a.info.DefaultRuntime), socket)
	}
	for _, c := range a.containers {
		if a.info.isSysbox(c.runtime) {
			e.found(message.IsolationContainerRuntime, "container %s, runtime %s, engine at %s", c.name, a.info.runtime(c.runtime), socket)
		}
	}
	if a.more {
		e.missed("engine at "+socket, fmt.Errorf("it runs more than %d containers", maxContainers))
	}
	return e
}
