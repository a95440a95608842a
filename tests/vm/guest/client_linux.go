package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
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
	want, got := sha256.New(), sha256.New()
	sent := make(chan error, 1)
	go func() {
		source := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
		_, err := io.Copy(struct{ io.Writer }{c}, io.TeeReader(source, want))
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	n, err := io.Copy(got, onlyReader{c})
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("%d of %d bytes came back, or others", n, size)
	}
	return nil
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
				err = flow(c, i)
			}
			held.Done()
			held.Wait()
			if err == nil {
				err = flow(c, i+1) // now that all are open
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

func flow(c net.Conn, i int) error {
	data := make([]byte, 1000+i)
	rand.NewChaCha8([32]byte{byte(i)}).Read(data)
	if _, err := c.Write(data); err != nil {
		return err
	}
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return errors.New("other bytes came back")
	}
	return nil
}
