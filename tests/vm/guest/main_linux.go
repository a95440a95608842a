package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// Ports of the servers; the tests have them too.
const (
	portEcho   = 1000
	portOrders = 1001
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func run() error {
	failed := make(chan error, 2)
	for port, serve := range map[uint32]func(*vsock.Conn) error{portEcho: echo, portOrders: obey} {
		l, err := vsock.Listen(port, nil)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go func() {
					defer c.Close()
					if err := serve(c.(*vsock.Conn)); err != nil {
						fmt.Println("guest:", port, err)
					}
				}()
			}
		}()
	}
	fmt.Println("GUEST-READY")
	return <-failed
}

// echo ends its direction when the other has ended.
func echo(c *vsock.Conn) error {
	if _, err := io.CopyBuffer(c, onlyReader{c}, make([]byte, 64<<10)); err != nil {
		return err
	}
	return c.CloseWrite()
}

// onlyReader keeps io.Copy from finding anything faster than Read.
type onlyReader struct{ io.Reader }

// obey reads one line: what to do.
func obey(c *vsock.Conn) error {
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
