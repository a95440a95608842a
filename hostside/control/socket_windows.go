package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// SocketPath is the control pipe of a home. Pipes have a name space of their
// own, so the home's path goes into the name as a hash.
func SocketPath(home string) (string, error) {
	sum := sha256.Sum256([]byte(strings.ToLower(filepath.Clean(home))))
	return `\\.\pipe\vmbridge-` + hex.EncodeToString(sum[:8]), nil
}

// listen opens the control pipe. Its access list, in place of a socket's mode
// and peer credentials, admits this user, administrators and the system.
// winio asks for FILE_FLAG_FIRST_PIPE_INSTANCE, so a pipe of that name that
// somebody else has made is an error, never joined.
func listen(home string) (net.Listener, error) {
	path, err := SocketPath(home)
	if err != nil {
		return nil, err
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("control pipe: who am I: %w", err)
	}
	l, err := winio.ListenPipe(path, &winio.PipeConfig{
		SecurityDescriptor: "D:P(A;;GA;;;" + user.User.Sid.String() + ")(A;;GA;;;BA)(A;;GA;;;SY)",
	})
	if err != nil {
		return nil, fmt.Errorf("control pipe: %w", err)
	}
	return l, nil
}

func dial(ctx context.Context, home string) (net.Conn, error) {
	path, err := SocketPath(home)
	if err != nil {
		return nil, err
	}
	conn, err := winio.DialPipeContext(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notRunning(home)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: %w: run the command as that user", path, ErrForbidden)
	}
	return conn, err
}

// checkPeer has nothing to do: the pipe's access list decided.
func checkPeer(net.Conn) error { return nil }
