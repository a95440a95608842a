package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/vm/orders"
)

// Ports of the servers; the tests have them too.
const (
	portEcho   = 1000
	portOrders = 1001
)

// stream is a connection of whatever kind.
type stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

func main() {
	var err error
	if args := os.Args[1:]; len(args) == 3 {
		err = client(args[0], args[1], args[2])
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

// run listens on AF_VSOCK, and on TCP as well when the first argument says so.
func run() error {
	// An init may have started it with less.
	if err := os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	failed := make(chan error, 6)
	handlers := map[uint32]func(stream) error{
		portEcho: echo, portOrders: obey,
		orders.Port: func(c stream) error { return orders.Serve(c) },
	}
	for port, handle := range handlers {
		l, err := vsock.Listen(port, nil)
		if err != nil {
			return err
		}
		go serve(l, handle, failed)
		if len(os.Args) > 1 && os.Args[1] == "tcp" {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			go serve(l, handle, failed)
		}
	}
	fmt.Println("GUEST-READY")
	return <-failed
}

func serve(l net.Listener, handle func(stream) error, failed chan<- error) {
	for {
		c, err := l.Accept()
		if err != nil {
			failed <- err
			return
		}
		go func() {
			defer c.Close()
			if err := handle(c.(stream)); err != nil {
				fmt.Println("guest:", l.Addr(), err)
			}
		}()
	}
}

// echo ends its direction when the other has ended.
func echo(c stream) error {
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, onlyReader{c}, make([]byte, 64<<10)); err != nil {
		return err
	}
	return c.CloseWrite()
}

// onlyReader keeps io.Copy from finding anything faster than Read.
type onlyReader struct{ io.Reader }

// obey reads one line: what to do.
func obey(c stream) error {
	in := bufio.NewReaderSize(c, 64<<10)
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return fmt.Errorf("no order")
	}
	switch words[0] {
	case "swallow": // everything, and answer its sum
		sum := sha256.New()
		n, err := io.Copy(sum, in)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c, "%d %s\n", n, hex.EncodeToString(sum.Sum(nil)))
		return err
	case "produce": // so many bytes, of which each is a function of its place
		n, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		b := make([]byte, 64<<10)
		for at := 0; at < n; at += len(b) {
			for i := range b {
				b[i] = byte((at + i) * 2654435761 >> 8)
			}
			if _, err := c.Write(b[:min(len(b), n-at)]); err != nil {
				return err
			}
		}
		return nil
	case "discard": // everything, and say so
		if _, err := io.Copy(io.Discard, onlyReader{in}); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c, "discarded")
		return err
	case "zeros": // for ever
		b := make([]byte, 64<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return nil
			}
		}
	case "stall": // read nothing until the other end closes the connection
		fmt.Fprintln(c, "stalled")
		select {}
	case "dial": // a port of the host, say what happened, and echo there
		port, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		out, err := vsock.Dial(vsock.Host, uint32(port), nil)
		fmt.Fprintln(c, "dialled", err)
		if err != nil {
			return nil
		}
		defer out.Close()
		return echo(out)
	case "reboot":
		unix.Sync()
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	return fmt.Errorf("order %q", line)
}
