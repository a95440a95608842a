package dockeragent

import (
	"errors"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/dockerapi"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// say logs what was found out about the engine, unless it is the same again.
func (k *Keeper) say(what string, passed []string, say ...func(*logrus.Entry)) {
	k.mu.Lock()
	again := k.said == what
	k.said = what
	k.mu.Unlock()
	if again {
		return
	}
	for _, line := range passed {
		k.config.Log.Info("engine passed over: " + line)
	}
	for _, say := range say {
		say(k.config.Log)
	}
}

func passedOf(err error) []string {
	if none, ok := errors.AsType[*dockerapi.NotFoundError](err); ok {
		return none.Passed
	}
	return nil
}

// lineError is an error whose text is one line that can be printed.
type lineError struct {
	text string
	error
}

func (e lineError) Error() string { return e.text }
func (e lineError) Unwrap() error { return e.error }

// oneLine makes one line of an error with an engine's words in it.
func oneLine(err error) error {
	return lineError{clean(strings.ReplaceAll(err.Error(), "Error response from daemon: ", "")), err}
}

// maxText bounds what is shown of an engine's words, in bytes.
const maxText = 512

func clean(s string) string { return message.Clean(strings.Join(strings.Fields(s), " "), maxText) }
