package orders

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// Port is where the guest takes orders, on AF_VSOCK.
const Port = 1002

// kind says what a frame is.
type kind byte

const (
	kindOrder  kind = 'o' // the first frame: an order
	kindReady  kind = 'a' // the address of a socket that listens, or is connected
	kindData   kind = 'd' // input of a program; either way, what a socket carries
	kindError  kind = 'e' // a failure: what went wrong
	kindEnd    kind = 'f' // the end of input, or of a socket's direction
	kindReset  kind = 'r' // reset the socket, or kill the program
	kindStderr kind = '2' // a program's standard error
	kindStdout kind = '1' // and its output
	kindStatus kind = 'x' // its exit status; the last frame
)

// maxFrame bounds a frame's payload, in bytes: the largest datagram fits.
const maxFrame = 1 << 16

// order is what a guest is asked for: exactly one of these.
type order struct {
	Run    []string `json:",omitempty"` // a program and its arguments
	Dial   *address `json:",omitempty"`
	Accept *address `json:",omitempty"`
}

type address struct{ Network, Address string }

// failure is an error that has crossed the wire; the number survives it.
type failure struct {
	Text  string
	Errno syscall.Errno
}

func (f *failure) Error() string { return f.Text }

func (f *failure) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}

// framer writes and reads frames. Frames may be written by several at once.
type framer struct {
	conn    io.ReadWriter
	writing sync.Mutex
}

func (f *framer) write(k kind, payload []byte) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	head := binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(len(payload)))
	_, err := f.conn.Write(append(head, payload...))
	return err
}

func (f *framer) writeJSON(k kind, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.write(k, text)
}

func (f *framer) read() (kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(f.conn, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(f.conn, payload); err != nil {
		return 0, nil, err
	}
	return kind(head[0]), payload, nil
}

// writer is an io.Writer whose bytes go out as frames of one kind.
type writer struct {
	*framer
	kind kind
}

func (w writer) Write(p []byte) (int, error) {
	for at := 0; at < len(p); {
		n := min(len(p)-at, maxFrame)
		if err := w.write(w.kind, p[at:at+n]); err != nil {
			return at, err
		}
		at += n
	}
	return len(p), nil
}
