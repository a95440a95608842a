package dockeragent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"github.com/moby/moby/api/pkg/stdcopy"
)

// frame is a piece as an engine sends it.
func frame(kind stdcopy.StdType, text string) []byte {
	header := make([]byte, headerSize)
	header[0] = byte(kind)
	binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
	return append(header, text...)
}

func TestDemux(t *testing.T) {
	stream := bytes.Join([][]byte{
		frame(stdcopy.Stdout, "one"), frame(stdcopy.Stderr, "bad\n"), frame(stdcopy.Stdout, ""),
		frame(stdcopy.Stdout, " two"), frame(stdcopy.Systemerr, "worse\n"), frame(stdcopy.Stdout, "."),
	}, nil)
	for name, from := range map[string]io.Reader{
		"at once":       bytes.NewReader(stream),
		"byte by byte":  iotest.OneByteReader(bytes.NewReader(stream)),
		"end with data": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		var stderr bytes.Buffer
		got, err := io.ReadAll(newDemux(from, &stderr))
		if err != nil || string(got) != "one two." || stderr.String() != "bad\nworse\n" {
			t.Errorf("%s: %q, %q, %v", name, got, stderr.String(), err)
		}
	}
}

// TestDemuxErrors: a stream that breaks off, and one that is none.
func TestDemuxErrors(t *testing.T) {
	whole := frame(stdcopy.Stdout, "one")
	for cut := 1; cut < len(whole); cut++ {
		if _, err := io.ReadAll(newDemux(bytes.NewReader(whole[:cut]), io.Discard)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", cut, err)
		}
	}
	for _, bad := range []string{"HTTP/1.1 ", "\x00\x00\x00\x00\x00\x00\x00\x01x", "\x01\x00\x00\x01\x00\x00\x00\x01x", "\x04\x00\x00\x00\x00\x00\x00\x01x"} {
		d := newDemux(bytes.NewReader(append(frame(stdcopy.Stdout, "good"), bad...)), io.Discard)
		got, err := io.ReadAll(d)
		if string(got) != "good" || !errors.Is(err, errNotEngine) {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

// TestDemuxDeadline: an error of the source that passes, such as a deadline's, loses
// nothing, wherever it comes.
func TestDemuxDeadline(t *testing.T) {
	stream := append(frame(stdcopy.Stdout, "one"), frame(stdcopy.Stdout, "two")...)
	for at := range len(stream) {
		d := newDemux(&interrupted{data: stream, at: at}, io.Discard)
		var got []byte
		timeouts := 0
		for b := make([]byte, 2); ; {
			n, err := d.Read(b)
			got = append(got, b[:n]...)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				timeouts++
				continue
			}
			if err != nil {
				break
			}
		}
		if string(got) != "onetwo" || timeouts != 1 {
			t.Errorf("after %d bytes: %q, %d timeouts", at, got, timeouts)
		}
	}
}

// interrupted fails once after some bytes.
type interrupted struct {
	data     []byte
	at, read int
	failed   bool
}

func (r *interrupted) Read(b []byte) (int, error) {
	if r.read == r.at && !r.failed {
		r.failed = true
		return 0, os.ErrDeadlineExceeded
	}
	if r.read == len(r.data) {
		return 0, io.EOF
	}
	end := len(r.data)
	if !r.failed {
		end = r.at
	}
	n := copy(b, r.data[r.read:end])
	r.read += n
	return n, nil
}

// FuzzDemux holds demux to the engine's own reader, for any stream in any pieces.
func FuzzDemux(f *testing.F) {
	f.Add(append(frame(stdcopy.Stdout, "one"), frame(stdcopy.Stderr, "two")...), uint8(3))
	f.Add(frame(stdcopy.Systemerr, "x"), uint8(1))
	f.Add([]byte("HTTP/1.1 400 Bad Request"), uint8(255))
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255, 1}, uint8(9)) // for which the engine's own takes 4 GiB
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		var stderr bytes.Buffer
		d := newDemux(&pieces{stream, int(piece) + 1}, &stderr)
		got, err := io.ReadAll(d)
		if err != nil {
			return // it breaks off, or no engine sends it
		}
		var wantOut, wantErr bytes.Buffer
		if _, err := stdcopy.StdCopy(&wantOut, &wantErr, bytes.NewReader(stream)); err != nil {
			return // an error of the engine's, which is a line of standard error here
		}
		if !bytes.Equal(got, wantOut.Bytes()) || !bytes.Equal(stderr.Bytes(), wantErr.Bytes()) {
			t.Errorf("%q: %q, %q; the engine's own gives %q, %q", stream, got, stderr.Bytes(), wantOut.Bytes(), wantErr.Bytes())
		}
	})
}

// pieces gives at most so many bytes at a time.
type pieces struct {
	left []byte
	most int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.most)], p.left)
	p.left = p.left[n:]
	return n, nil
}
