package orders

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Guest is a machine that takes orders.
type Guest struct {
	// Dial connects to Port of the machine.
	Dial func(ctx context.Context) (net.Conn, error)
}

// Command is a program to run. Nil fields are as in exec.Cmd: nothing to read, and
// what is written is dropped.
type Command struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// ExitError is the end of a program that did not succeed.
type ExitError struct {
	Status int    // 128 and the signal's number, for a signal
	Stderr string // the end of it
}

func (e *ExitError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("exit status %d: %s", e.Status, strings.TrimSpace(e.Stderr)))
}

// Output runs a program to its end, and gives what it printed on its standard
// output.
func (g Guest) Output(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := g.Run(ctx, Command{Args: args, Stdout: &out})
	return out.String(), err
}

// killTime bounds how long Run waits for a program that the guest kills.
const killTime = 10 * time.Second

// Run runs a program to its end, which the end of the context brings about.
func (g Guest) Run(ctx context.Context, c Command) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("in the machine: %s: %w", strings.Join(c.Args, " "), err)
		}
	}()
	f, conn, err := g.begin(ctx, order{Run: c.Args})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() {
		// The guest kills the program, and answers when it has ended.
		_ = conn.SetDeadline(time.Now().Add(killTime))
		_ = f.write(kindReset, nil)
	})
	defer stop()
	go func() {
		if c.Stdin != nil {
			_, _ = io.Copy(writer{f, kindData}, c.Stdin)
		}
		_ = f.write(kindEnd, nil) // the program may have ended
	}()
	status, stderr, err := watch(f, c)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err == nil && status != 0 {
		err = &ExitError{status, stderr}
	}
	return err
}

// watch passes on what a program prints, until it has ended.
func watch(f *framer, c Command) (status int, stderr string, err error) {
	const tail = 2048
	put := func(w io.Writer, p []byte) {
		if w != nil {
			_, _ = w.Write(p) // as with a pipe that nobody reads, the program goes on
		}
	}
	for {
		k, payload, err := f.read()
		if err != nil {
			return 0, "", err
		}
		switch k {
		case kindStdout:
			put(c.Stdout, payload)
		case kindStderr:
			put(c.Stderr, payload)
			stderr += string(payload)
			stderr = stderr[max(0, len(stderr)-tail):]
		case kindStatus:
			status, err := strconv.Atoi(string(payload))
			return status, stderr, err
		case kindError:
			return 0, "", readFailure(payload)
		}
	}
}

// begin gives an order.
func (g Guest) begin(ctx context.Context, o order) (*framer, net.Conn, error) {
	conn, err := g.Dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	f := &framer{conn: conn}
	if err := f.writeJSON(kindOrder, o); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return f, conn, nil
}

func readFailure(payload []byte) error {
	var f failure
	if err := json.Unmarshal(payload, &f); err != nil {
		return err
	}
	return &f
}

// Connect connects a socket of the machine, tcp or udp, unless the context ends
// before.
func (g Guest) Connect(ctx context.Context, network, to string) (*Socket, error) {
	s, err := g.socket(ctx, order{Dial: &address{network, to}})
	if err == nil {
		stop := context.AfterFunc(ctx, func() { s.Conn.Close() })
		if err = s.ready(); !stop() {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("in the machine: connect %s %s: %w", network, to, err)
	}
	return s, nil
}

// Listener waits for one TCP connection in the machine.
type Listener struct{ socket *Socket }

// Listen has the machine listen for one TCP connection.
func (g Guest) Listen(ctx context.Context, at string) (*Listener, error) {
	s, err := g.socket(ctx, order{Accept: &address{"tcp", at}})
	if err == nil {
		err = s.ready()
	}
	if err != nil {
		return nil, fmt.Errorf("in the machine: listen at %s: %w", at, err)
	}
	return &Listener{s}, nil
}

// Accept waits for the connection; Listener is of no use after that.
func (l *Listener) Accept() (*Socket, error) {
	if err := l.socket.ready(); err != nil {
		return nil, fmt.Errorf("in the machine: accept: %w", err)
	}
	return l.socket, nil
}

func (g Guest) socket(ctx context.Context, o order) (*Socket, error) {
	f, conn, err := g.begin(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Socket{Conn: conn, framer: f}, nil
}

// Socket is a connected socket in the machine. Its deadlines are of the way there.
type Socket struct {
	net.Conn // what carries the frames
	framer   *framer
	rest     []byte
	err      error // what Read has come to
}

// ready waits until the machine says so. A failure closes the socket.
func (s *Socket) ready() error {
	k, payload, err := s.framer.read()
	switch {
	case err == nil && k == kindReady:
		return nil
	case err == nil && k == kindError:
		err = readFailure(payload)
	case err == nil:
		err = fmt.Errorf("frame %q", k)
	}
	return errors.Join(err, s.Conn.Close())
}

// Read gives what has arrived: of a UDP socket, one datagram. Its errors are those
// of the socket in the machine.
func (s *Socket) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		k, payload, err := s.framer.read()
		switch {
		case err != nil:
			return 0, fmt.Errorf("the way to the machine: %w", err)
		case k == kindData:
			s.rest = payload
		case k == kindEnd:
			s.err = io.EOF
		case k == kindError:
			s.err = readFailure(payload)
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends: through a UDP socket, one datagram.
func (s *Socket) Write(p []byte) (int, error) { return writer{s.framer, kindData}.Write(p) }

// CloseWrite ends the socket's direction to its peer.
func (s *Socket) CloseWrite() error { return s.framer.write(kindEnd, nil) }

// Reset ends the socket as a crash does: its peer gets a reset.
func (s *Socket) Reset() error {
	if err := s.framer.write(kindReset, nil); err != nil {
		return err
	}
	// The guest closes its end when the socket has gone.
	for {
		if _, _, err := s.framer.read(); err != nil {
			return s.Close()
		}
	}
}
