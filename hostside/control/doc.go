// Package control is how the command line talks to the running daemon:
// HTTP/JSON with server-sent events on a unix socket, or a named pipe on
// Windows.
//
// Theory of operation. Everything an instance owns (settings, keys, state, the
// control socket) lies in one directory, the home; $VMBRIDGE_HOME names
// another, so that several instances run side by side. Listen claims the home
// with a file lock, which the kernel lets go of however the daemon dies; so
// there is never a question whether a leftover socket is stale: whoever holds
// the lock replaces it. Serve then answers requests from a Backend.
//
// Only the daemon's own user and root may talk to it. The socket's mode (0600)
// says so, and each connection's peer credentials are checked again, because a
// socket is born with the process's umask and because a container that was
// given the directory is another user still.
//
// The types that travel (Status, Port, ...) are the public JSON of the
// --json options. Watching is level-triggered: a wake makes the server look at
// all ports again and send the difference to what this client knows, so a slow
// client sees fewer intermediate states, never a stale one.
package control
