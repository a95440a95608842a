//go:build linux

// Command server is the program that the acceptance tests run in containers and
// in the guest. It is static, so that an image needs nothing else.
//
//	server tcp4 0.0.0.0 7000 7999   listens on these ports
//	server udp :: 7000 7999         a network as package net names it
//	server bequeath tcp4 ADDRESS    listens, and leaves the socket to an heir
//	server inherit                  is the heir, until its standard input ends
//	server make                     makes sockets for the test program
//	server hostagent --pidfile FILE --socket FILE INSTANCE tcp4 0.0.0.0 7000 7999
//	                                as the first, with a command line like limactl's
//
// What it serves is echo. Several lists of networks, addresses and ports may
// follow each other.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
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
	switch {
	case len(args) == 1 && args[0] == "make":
		return socket.Serve()
	case len(args) == 1 && args[0] == "inherit":
		return inherit()
	case len(args) == 3 && args[0] == "bequeath":
		return bequeath(args[1], args[2])
	case len(args) > 6 && args[0] == "hostagent":
		args = args[6:]
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
		return errors.New("want NETWORK ADDRESS FIRST LAST ..., bequeath NETWORK ADDRESS, inherit, or make")
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

// bequeath starts an heir that has the socket as descriptor 3.
func bequeath(network, address string) error {
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	heir := exec.Command("/proc/self/exe", "inherit")
	heir.Stdin, heir.Stderr = os.Stdin, os.Stderr
	heir.ExtraFiles = []*os.File{f}
	return heir.Start()
}

func inherit() error {
	l, err := net.FileListener(os.NewFile(3, "inherited"))
	if err != nil {
		return err
	}
	go echo.TCP(l)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
