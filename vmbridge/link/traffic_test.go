package link_test

import (
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"
)

// echoTime is how long 4 MiB take there and back.
func echoTime(t *testing.T, addr string) time.Duration {
	t.Helper()
	began := time.Now()
	roundTrip(t, dialTCP(t, addr), 4<<20)
	return time.Since(began)
}

// roundTrip sends bytes to an echo and checks what comes back.
func roundTrip(t testing.TB, c *net.TCPConn, size int64) {
	t.Helper()
	sum := make(chan uint32, 1)
	go func() {
		defer c.CloseWrite()
		sum <- pour(t, c, size)
	}()
	sumGot, n, err := swallow(c)
	if want := <-sum; n != size || sumGot != want || err != nil {
		t.Errorf("%d of %d bytes came back, checksum %08x instead of %08x, %v", n, size, sumGot, want, err)
	}
	_ = c.Close()
}

// reset closes a connection so that its peer sees a reset.
func reset(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }

// writeUntilStalled writes until nothing has been taken for a while, and says
// how much was.
func writeUntilStalled(t testing.TB, c *net.TCPConn) int64 {
	t.Helper()
	_ = c.SetWriteBuffer(64 << 10)
	payload := noise(64 << 10)
	var sent int64
	for limit := int64(256 << 20); sent < limit; {
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Write(payload)
		sent += int64(n)
		if err != nil {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Fatal(err)
			}
			_ = c.SetWriteDeadline(time.Now().Add(2 * patience))
			return sent
		}
	}
	t.Fatalf("%d bytes were taken for a reader that does not read", sent)
	return 0
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pour writes size bytes and gives their checksum.
func pour(t testing.TB, w io.Writer, size int64) uint32 {
	sum := crc32.New(castagnoli)
	piece := noise(1 << 20)
	for left := size; left > 0; {
		n := min(left, int64(1+rand.IntN(len(piece))))
		if _, err := w.Write(piece[:n]); err != nil {
			t.Error(err)
			break
		}
		_, _ = sum.Write(piece[:n])
		left -= n
	}
	return sum.Sum32()
}

// swallow reads to the end and gives the checksum and the size.
func swallow(r io.Reader) (uint32, int64, error) {
	sum := crc32.New(castagnoli)
	n, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return sum.Sum32(), n, err
}

// noise is bytes of which no two pieces are alike.
func noise(size int) []byte {
	p := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(p)
	return p
}

// loopback is an address that nothing is sent to.
var loopback = netip.MustParseAddrPort("127.0.0.1:9")
