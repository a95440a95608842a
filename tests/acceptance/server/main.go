// Command server is the echo server that the acceptance tests run in containers
// and as a child that inherits its socket. It is static, so that an image needs
// nothing else.
//
//	server tcp4 0.0.0.0 7000 7999   listens on these ports
//	server udp :: 7000 7999         a network as package net names it
//	server fd                       serves the listening socket that is descriptor 3
//
// Several lists of arguments may follow each other. It prints "ready" when all
// is open.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/vmbridge/vmbridge/tests/internal/echo"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	select {}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "fd" {
		return inherit()
	}
	for ; len(args) >= 4; args = args[4:] {
		first, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		last, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		for port := first; port <= last; port++ {
			if err := serve(args[0], net.JoinHostPort(args[1], strconv.Itoa(port))); err != nil {
				return err
			}
		}
	}
	if len(args) != 0 {
		return errors.New("want NETWORK ADDRESS FIRST LAST ..., or fd")
	}
	return nil
}

func serve(network, address string) error {
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			return err
		}
		go echo.UDP(c.(*net.UDPConn))
		return nil
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	go echo.TCP(l)
	return nil
}

func inherit() error {
	f := os.NewFile(3, "inherited")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	go echo.TCP(l)
	return nil
}
