package orders

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// acceptTime bounds how long the guest waits for a connection that a test has
// given up.
const acceptTime = 5 * time.Minute

// Serve carries out the order that comes on a connection, and closes it.
func Serve(conn io.ReadWriteCloser) error {
	defer conn.Close()
	f := &framer{conn: conn}
	k, payload, err := f.read()
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(payload, &o); err != nil || k != kindOrder {
		return fmt.Errorf("no order: %q: %v", payload, err)
	}
	switch {
	case len(o.Run) > 0:
		err = run(f, o.Run)
	case o.Dial != nil:
		var c net.Conn
		if c, err = net.Dial(o.Dial.Network, o.Dial.Address); err == nil {
			err = lend(f, c)
		}
	case o.Accept != nil:
		err = accept(f, o.Accept)
	default:
		err = errors.New("an empty order")
	}
	if err != nil {
		return f.fail(err)
	}
	return nil
}

// fail tells the test of an error.
func (f *framer) fail(err error) error {
	told := &failure{Text: err.Error()}
	errors.As(err, &told.Errno)
	return f.writeJSON(kindError, told)
}

func accept(f *framer, a *address) error {
	l, err := net.Listen(a.Network, a.Address)
	if err != nil {
		return err
	}
	defer l.Close()
	if l, ok := l.(*net.TCPListener); ok {
		_ = l.SetDeadline(time.Now().Add(acceptTime))
	}
	if err := f.write(kindReady, []byte(l.Addr().String())); err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	l.Close() // one is all
	return lend(f, c)
}

// lend gives a socket to the test until the test has closed its connection. Only
// then it is closed here, however its directions have ended.
func lend(f *framer, c net.Conn) error {
	defer c.Close()
	if err := f.write(kindReady, []byte(c.LocalAddr().String())); err != nil {
		return err
	}
	go arrivals(f, c)
	for {
		k, payload, err := f.read()
		if err != nil {
			return nil // the test is done with it
		}
		switch k {
		case kindData:
			// The reader tells how the socket has ended.
			_, _ = c.Write(payload)
		case kindEnd:
			if c, ok := c.(*net.TCPConn); ok {
				_ = c.CloseWrite()
			}
		case kindReset:
			if c, ok := c.(*net.TCPConn); ok {
				_ = c.SetLinger(0)
			}
			return nil
		}
	}
}

// arrivals tells the test what the socket gets.
func arrivals(f *framer, c net.Conn) {
	buf := make([]byte, maxFrame)
	_, datagrams := c.(*net.UDPConn)
	for {
		n, err := c.Read(buf)
		if n > 0 || err == nil {
			if f.write(kindData, buf[:n]) != nil {
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = f.write(kindEnd, nil)
			return
		default:
			if f.fail(err) != nil || !datagrams || errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}
}
