//go:build linux

// Command server is the program that the acceptance tests run in containers and
// in the guest. It is static, so that an image needs nothing else.
//
//	server tcp4 0.0.0.0 7000 7999   listens on these ports
//	server udp :: 7000 7999         a network as package net names it
//	server fd                       serves the listening socket that is descriptor 3
//	server make                     makes sockets for the test program
//
// What it serves is echo. Several lists of networks, addresses and ports may
// follow each other.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/vmbridge/vmbridge/tests/internal/echo"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 {
		switch args[0] {
		case "fd":
			return inherit()
		case "make":
			return socket.Serve()
		}
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
		return errors.New("want NETWORK ADDRESS FIRST LAST ..., fd, or make")
	}
	select {}
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
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	f.Close()
	echo.TCP(l)
	return nil
}
