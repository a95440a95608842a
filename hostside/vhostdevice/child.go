package vhostdevice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// child is a device that was started here.
type child struct {
	pid     int
	logFile string
	logged  int64         // how long the log was before
	done    chan struct{} // closed when the child has ended
	err     error         // then, how
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// failure says why the child has ended: the last line that it logged.
func (c *child) failure() error {
	err := c.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	if line := c.lastLine(); line != "" {
		return errors.New(line)
	}
	return fmt.Errorf("it ended at once (%w)", err)
}

// lastLog is how much of the log's end is looked at, in bytes.
const lastLog = 4 << 10

// lastLine is the text of the last line of the log, if it is the child's.
func (c *child) lastLine() string {
	f, err := os.Open(c.logFile)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() <= c.logged {
		return ""
	}
	from := max(c.logged, info.Size()-lastLog)
	text, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	if err != nil {
		return ""
	}
	text = bytes.TrimSpace(text)
	last := text[bytes.LastIndexByte(text, '\n')+1:]
	var entry struct{ Msg string }
	if json.Unmarshal(last, &entry) != nil || entry.Msg == "" {
		return message.Clean(string(last), lastLog)
	}
	return strings.TrimSpace(message.Clean(entry.Msg, lastLog))
}
