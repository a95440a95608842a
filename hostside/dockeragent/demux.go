package dockeragent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/pkg/stdcopy"
)

const (
	headerSize = 8 // kind, three zeros, and the length, the most significant byte first
	// demuxBuffer is a few of an engine's pieces, which have 32 KiB: one read takes
	// what has come meanwhile.
	demuxBuffer = 256 << 10
)

// errNotEngine means that what comes is not framed as an engine does it.
var errNotEngine = errors.New("the engine's stream is damaged")

// demux reads the standard output of a container out of the stream that its standard
// error shares. An error of the source, such as a deadline's, loses nothing.
type demux struct {
	from   io.Reader
	stderr io.Writer

	buf    []byte
	unread []byte // of buf
	kind   stdcopy.StdType
	left   int // of the current piece, in bytes
}

func newDemux(from io.Reader, stderr io.Writer) *demux {
	return &demux{from: from, stderr: stderr, buf: make([]byte, demuxBuffer)}
}

// Read reads standard output.
func (d *demux) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if n, err = d.take(p); n > 0 || err != nil {
			return n, err
		}
		if err := d.fill(); err != nil {
			return 0, err
		}
	}
}

// fill reads more from the source.
func (d *demux) fill() error {
	kept := copy(d.buf, d.unread) // the beginning of a header, if anything
	n, err := d.from.Read(d.buf[kept:])
	d.unread = d.buf[:kept+n]
	if n > 0 {
		return nil // an error comes again
	}
	if err == io.EOF && (kept > 0 || d.left > 0) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// take copies to p what is there of standard output, and passes standard error on.
func (d *demux) take(p []byte) (n int, err error) {
	for n < len(p) {
		if d.left == 0 {
			if len(d.unread) < headerSize {
				break
			}
			if err := d.header(); err != nil {
				if n > 0 {
					break // it comes again
				}
				return 0, err
			}
			d.unread = d.unread[headerSize:]
			continue
		}
		if len(d.unread) == 0 {
			break
		}
		size := min(d.left, len(d.unread))
		switch d.kind {
		case stdcopy.Stdout:
			size = copy(p[n:], d.unread[:size])
			n += size
		default:
			if _, err := d.stderr.Write(d.unread[:size]); err != nil {
				return n, err
			}
		}
		d.unread = d.unread[size:]
		d.left -= size
	}
	return n, nil
}

// header reads the header that is the beginning of unread.
func (d *demux) header() error {
	h := d.unread[:headerSize]
	kind := stdcopy.StdType(h[0])
	if h[1]|h[2]|h[3] != 0 || (kind != stdcopy.Stdout && kind != stdcopy.Stderr && kind != stdcopy.Systemerr) {
		return fmt.Errorf("%w: a piece begins with %x", errNotEngine, h)
	}
	d.kind, d.left = kind, int(binary.BigEndian.Uint32(h[4:]))
	return nil
}
