package vhostdevice

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Status is what a device answers to STATUS.
type Status struct {
	CID     uint32 `json:"cid"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Machine bool   `json:"machine"` // QEMU is connected
	Driver  bool   `json:"driver"`  // and a driver in the guest runs the device
}

// errAbsent: nobody answers, or only somebody who is about to go.
var errAbsent = errors.New("no device answers")

// maxStatus bounds an answer, in bytes.
const maxStatus = 4 << 10

// askTimeout bounds the wait for an answer, which takes no time but on a busy
// machine.
const askTimeout = 3 * time.Second

// ask asks whoever listens on a hybrid socket what it is.
func ask(ctx context.Context, path string) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return Status{}, errAbsent
	}
	if err != nil {
		return Status{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	_, _ = io.WriteString(c, "STATUS\n") // whatever comes of it, there may be something to read
	line, err := bufio.NewReader(io.LimitReader(c, maxStatus)).ReadBytes('\n')
	if ctx.Err() != nil {
		return Status{}, fmt.Errorf("somebody listens on %s, but does not answer: %w", path, ctx.Err())
	}
	if err != nil && len(line) == 0 {
		return Status{}, errAbsent // closed: it is about to end
	}
	if reason, refused := strings.CutPrefix(string(line), "ERR "); refused {
		return Status{}, fmt.Errorf("the device at %s: %s", path, message.Clean(strings.TrimSpace(reason), maxStatus))
	}
	var s Status
	if json.Unmarshal(line, &s) != nil || s.PID == 0 {
		return Status{}, fmt.Errorf("%s belongs to something else than vmbridge device; choose another path", path)
	}
	return s, nil
}
