package ready

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Variable names the socket to tell.
const Variable = "NOTIFY_SOCKET"

// message is what sd_notify(3) calls it.
const message = "READY=1"

// Tell says that this process serves. Where nobody asked to be told, or nobody
// listens any more, it does nothing.
func Tell() error {
	path := os.Getenv(Variable)
	if path == "" {
		return nil
	}
	// A leading @ stands for Linux's abstract sockets, for package net as well.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(message))
		_ = c.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// Socket hears when a process serves.
type Socket struct {
	conn *net.UnixConn
	path string
}

// Listen waits for a process that is about to be started with the variable set to
// path. What is left there of an earlier one is replaced.
func Listen(path string) (*Socket, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	s := &Socket{conn: conn, path: path}
	if err := os.Chmod(path, 0o600); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Wait returns when the process has said that it serves, or with ctx's error.
func (s *Socket) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for buffer := make([]byte, 4096); ; {
		n, err := s.conn.Read(buffer)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		for line := range strings.Lines(string(buffer[:n])) {
			if strings.TrimSpace(line) == message {
				return nil
			}
		}
	}
}

// Close removes the socket.
func (s *Socket) Close() {
	_ = s.conn.Close()
	_ = os.Remove(s.path)
}
