package main

import (
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/vmbridge/vmbridge/tests/internal/traffic"
)

// client is what the program does when it is given a word, an address of an echo
// server and a number: it says whether it got back what it sent.
func client(word, address, number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	switch word {
	case "bulk":
		err = bulk(address, int64(n))
	case "flows":
		err = flows(address, n)
	default:
		err = fmt.Errorf("what is %q?", word)
	}
	if err == nil {
		fmt.Println("equal")
	}
	return err
}

// bulk sends size bytes while it receives them.
func bulk(address string, size int64) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	return traffic.Exchange(c.(*net.TCPConn), size)
}

// flows holds n connections at once, and each carries bytes of its own.
func flows(address string, n int) error {
	var held, ended sync.WaitGroup
	held.Add(n)
	errs := make(chan error, n)
	for i := range n {
		ended.Go(func() {
			c, err := net.Dial("tcp", address)
			if err == nil {
				defer c.Close()
				err = traffic.Echo(c, 1000+i)
			}
			held.Done()
			held.Wait()
			if err == nil {
				err = traffic.Echo(c, 1001+i) // now that all are open
			}
			errs <- err
		})
	}
	ended.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
