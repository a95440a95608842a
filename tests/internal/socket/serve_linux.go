package socket

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/internal/echo"
)

// Serve is what a maker's process does, until the Maker is closed.
func Serve() error {
	f := os.NewFile(makerFD, "maker")
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	f.Close()
	m := making{conn: c.(*net.UnixConn), servers: map[int]io.Closer{}}
	defer m.conn.Close()
	buf := make([]byte, maxMessage)
	for {
		n, err := m.conn.Read(buf)
		if err != nil || n == 0 {
			return nil // the end of a sequence of packets is an empty one
		}
		var r request
		if err := json.Unmarshal(buf[:n], &r); err != nil {
			return err
		}
		if err := m.reply(m.do(r)); err != nil {
			return err
		}
	}
}

// making is a maker's process.
type making struct {
	conn    *net.UnixConn
	servers map[int]io.Closer
	last    int
}

// do does what was asked for. A file that it returns is to be passed on.
func (m *making) do(r request) (a answer, pass *os.File, err error) {
	if r.Do == "close" {
		err := m.servers[r.ID].Close()
		delete(m.servers, r.ID)
		return answer{}, nil, err
	}
	f, err := openOnThread(r.Spec)
	if err != nil {
		return answer{}, nil, err
	}
	switch r.Do {
	case "open":
		return answer{}, f, nil
	case "flash":
		return answer{}, nil, f.Close()
	case "echo":
		defer f.Close() // the server has a duplicate
		m.last++
		a.ID = m.last
		m.servers[a.ID], a.Address, err = serve(f, r.Spec.Network)
		return a, nil, err
	}
	f.Close()
	return answer{}, nil, fmt.Errorf("what is %q?", r.Do)
}

func (m *making) reply(a answer, pass *os.File, err error) error {
	var rights []byte
	if err != nil {
		a.Error = err.Error()
		errors.As(err, &a.Errno)
	}
	if pass != nil {
		defer pass.Close()
		rights = unix.UnixRights(int(pass.Fd()))
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, _, err = m.conn.WriteMsgUnix(text, rights, nil)
	return err
}

func serve(f *os.File, network string) (server io.Closer, address string, err error) {
	if network == "udp" {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return nil, "", err
		}
		go echo.UDP(c.(*net.UDPConn))
		return c, c.LocalAddr().String(), nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, "", err
	}
	go echo.TCP(l)
	return l, l.Addr().String(), nil
}

// openOnThread makes a socket on a thread that ends with it.
func openOnThread(s Spec) (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked
		defer close(done)
		f, err = s.Open()
	}()
	<-done
	return f, err
}
