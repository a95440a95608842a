// Package talk has tests talk to programs as a user does: type, and see what is
// shown.
package talk

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// Transcript is what a program has printed so far. The zero value is empty.
type Transcript struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (s *Transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	return len(p), nil
}

// String gives all of it.
func (s *Transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// Talker is a program that a test talks to.
type Talker struct {
	T        testing.TB
	Name     string // of the program, in messages
	In       io.WriteCloser
	Said     *Transcript
	Patience time.Duration // how long Shows waits
}

// Types types a line.
func (k *Talker) Types(line string) {
	k.T.Helper()
	if _, err := io.WriteString(k.In, line+"\n"); err != nil {
		k.T.Errorf("%s: type %q: %v", k.Name, line, err)
	}
}

// Shows waits until a text has been printed.
func (k *Talker) Shows(text string) {
	k.T.Helper()
	wait.Eventually(k.T, k.Patience, k.Name+" shows "+text, func() error {
		if said := k.Said.String(); !strings.Contains(said, text) {
			return fmt.Errorf("it shows %q", said)
		}
		return nil
	})
}

// Partner is one end of a Chat.
type Partner interface {
	Types(line string)
	Shows(text string)
}

var _ Partner = (*Talker)(nil)

// Chat has two programs that are connected show what is typed to the other.
func Chat(client, server Partner, word string) {
	client.Types(word + " from the client")
	server.Shows(word + " from the client")
	server.Types(word + " from the server")
	client.Shows(word + " from the server")
}
