package transport

import (
	"context"
	"io/fs"
	"net"

	"golang.org/x/sys/windows"
)

// errRefused is what connecting to a socket answers when nobody listens.
const errRefused = windows.WSAECONNREFUSED

// isSocket cannot tell: Windows calls its unix sockets irregular files.
func isSocket(info fs.FileInfo) bool { return info.Mode()&(fs.ModeIrregular|fs.ModeSocket) != 0 }

// lockDir does nothing: the socket's name cannot be reused while its process
// lives, which is all that matters here.
func lockDir(context.Context, string) (unlock func(), err error) { return func() {}, nil }

// bindPrivate relies on the directory, whose access list the socket inherits.
func bindPrivate(ctx context.Context, path string) (*net.UnixListener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}
