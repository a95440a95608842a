// Package traffic is what tests send through connections, and how they see that
// all of it arrives. Their errors say what did not.
package traffic

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
)

// Stream is a connection with directions that end one by one.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Noise is n bytes that do not repeat, the same ones for the same n.
func Noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// Exchange writes so many bytes of noise, closes its direction, and expects the
// same noise from the other end, at once.
func Exchange(c Stream, size int64) error {
	want, got := sha256.New(), sha256.New()
	sent := make(chan error, 1)
	go func() {
		source := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
		_, err := io.Copy(struct{ io.Writer }{c}, io.TeeReader(source, want))
		sent <- errors.Join(err, c.CloseWrite())
	}()
	n, err := io.Copy(got, struct{ io.Reader }{c})
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("%d of %d bytes arrived, or others", n, size)
	}
	return nil
}

// HalfClose has one end ask and close its direction, and the other give an answer
// of so many bytes after it has seen that.
func HalfClose(asks, answers Stream, size int) error {
	question, answer := []byte("question"), Noise(size)
	answered := make(chan error, 1)
	go func() {
		got, err := io.ReadAll(answers)
		if err == nil && !bytes.Equal(got, question) {
			err = fmt.Errorf("the question came as %q", got)
		}
		if err == nil {
			_, err = answers.Write(answer)
		}
		answered <- errors.Join(err, answers.CloseWrite())
	}()
	if _, err := asks.Write(question); err != nil {
		return err
	}
	if err := asks.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(asks)
	if err := errors.Join(err, <-answered); err != nil {
		return err
	}
	if !bytes.Equal(got, answer) {
		return fmt.Errorf("%d of %d bytes arrived, or others", len(got), size)
	}
	return nil
}

// Echo sends n bytes of noise to an echo server, and expects them back.
func Echo(c net.Conn, n int) error {
	data := Noise(n)
	if _, err := c.Write(data); err != nil {
		return err
	}
	got := make([]byte, n)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return errors.New("other bytes came back")
	}
	return nil
}
