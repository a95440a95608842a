package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

const (
	// hybridTimeout bounds the wait for a reply where the caller sets no bound.
	hybridTimeout = 5 * time.Second
	// maxReply bounds the reply in bytes. "OK 4294967295" is what hypervisors
	// send; our own device sends a reason as well.
	maxReply = 256
)

// errLongLine is returned by ReadLine for a line that has no end.
var errLongLine = errors.New("the line is too long")

// dialHybrid connects to a port of a guest behind a hybrid vsock socket. Both
// hypervisors that have one want the request in one piece.
func dialHybrid(ctx context.Context, path string, port uint32) (net.Conn, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, hybridTimeout)
		defer cancel()
	}
	c, err := dialUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err = askHybrid(c, port)
	if !stop() {
		err = fmt.Errorf("no reply to CONNECT %d: %w", port, context.Cause(ctx))
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func askHybrid(c net.Conn, port uint32) error {
	// One that has too much to do answers and closes before it is asked, so a
	// failed write is no reason not to read.
	_, _ = fmt.Fprintf(c, "CONNECT %d\n", port)
	reply, err := ReadLine(c, maxReply)
	switch {
	case errors.Is(err, errLongLine):
		return fmt.Errorf("the reply to CONNECT %d has more than %d bytes: this is no hybrid vsock socket", port, maxReply)
	case err != nil && reply != "":
		return fmt.Errorf("closed in the middle of the reply to CONNECT %d: %q", port, message.Clean(reply, maxReply))
	case err != nil: // an end, a reset or a broken pipe, as it happens
		return fmt.Errorf("closed without a reply: nobody listens on port %d of the guest, or the guest has not booted", port)
	}
	word, rest, _ := strings.Cut(reply, " ")
	switch word {
	case "OK":
		return nil
	case "ERR":
		return errors.New(message.Clean(rest, maxReply))
	}
	return fmt.Errorf("%q is no reply to CONNECT %d: this is no hybrid vsock socket", message.Clean(reply, maxReply), port)
}

// ReadLine reads a line of at most limit bytes and gives it without its end. It
// reads byte by byte: what follows the line stays where it is. Of a line that has
// no end it gives what there is.
func ReadLine(r io.Reader, limit int) (string, error) {
	line := make([]byte, 0, limit)
	for {
		at := len(line)
		if at == limit {
			return string(line), errLongLine
		}
		if _, err := io.ReadFull(r, line[at:at+1]); err != nil {
			return string(line), err
		}
		if line = line[:at+1]; line[at] == '\n' {
			return string(line[:at]), nil
		}
	}
}
