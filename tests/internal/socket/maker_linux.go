package socket

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// makerFD is the descriptor on which a maker is told what to make: the first of
// exec.Cmd's ExtraFiles.
const makerFD = 3

// request is what a maker is asked for.
type request struct {
	Do   string // open, echo, flash or close
	Spec Spec   // of open, echo and flash
	ID   int    // of close
}

// answer is what became of a request. The socket that open made comes with it.
type answer struct {
	ID      int    // of echo
	Address string // of echo
	Error   string
	Errno   syscall.Errno // the number in Error, if there is one
}

// Maker is another process that makes sockets. Its methods may be called at
// once.
type Maker struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

// NewMaker prepares cmd, which must come to call Serve, for being a maker, and
// has start start it.
func NewMaker(cmd *exec.Cmd, start func(*exec.Cmd) error) (*Maker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "maker"), os.NewFile(uintptr(pair[1]), "maker")
	defer ours.Close() // conn has a duplicate
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{theirs}
	if err := start(cmd); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Maker{conn: conn.(*net.UnixConn)}, nil
}

// Close ends the process, and its servers with it.
func (m *Maker) Close() error { return m.conn.Close() }

// Open has the process make a socket, which it does not keep.
func (m *Maker) Open(s Spec) (*os.File, error) {
	_, f, err := m.ask(request{Do: "open", Spec: s})
	return f, err
}

// Flash has the process make a socket and close it at once.
func (m *Maker) Flash(s Spec) error {
	_, _, err := m.ask(request{Do: "flash", Spec: s})
	return err
}

// Echo has the process serve a socket. It tells where, until the server is
// closed.
func (m *Maker) Echo(s Spec) (server *Server, err error) {
	a, _, err := m.ask(request{Do: "echo", Spec: s})
	return &Server{Address: a.Address, maker: m, id: a.ID}, err
}

// Server is an echo server of a maker.
type Server struct {
	Address string // as getsockname tells it
	maker   *Maker
	id      int
}

// Close closes the server's socket, not its connections. It has effect when
// Close returns.
func (s *Server) Close() error {
	_, _, err := s.maker.ask(request{Do: "close", ID: s.id})
	return err
}

func (m *Maker) ask(r request) (a answer, f *os.File, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("socket maker: %s %s %s: %w", r.Do, r.Spec.Network, r.Spec.Address, err)
		}
	}()
	m.mu.Lock()
	defer m.mu.Unlock()
	text, err := json.Marshal(r)
	if err != nil {
		return a, nil, err
	}
	if _, err := m.conn.Write(text); err != nil {
		return a, nil, err
	}
	buf, control := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, c, _, _, err := m.conn.ReadMsgUnix(buf, control)
	if err != nil {
		return a, nil, err
	}
	if err := json.Unmarshal(buf[:n], &a); err != nil {
		return a, nil, err
	}
	if a.Error != "" {
		return a, nil, fmt.Errorf("%s (%w)", a.Error, a.Errno)
	}
	if c > 0 {
		f, err = passed(control[:c])
	}
	return a, f, err
}

// maxMessage bounds requests and answers, in bytes.
const maxMessage = 4096

// passed takes the one descriptor out of a control message. Package net has it
// closed when another program is executed.
func passed(control []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "socket"), nil
}
