package wake

import (
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkBind measures what the hooks add to socket, bind and close (G6): run
// it with and without.
func BenchmarkBind(b *testing.B) {
	for _, c := range []struct {
		name   string
		typ    int
		port   int
		listen bool
	}{
		{"udp-port", unix.SOCK_DGRAM, 23456, false},
		{"udp-any", unix.SOCK_DGRAM, 0, false},
		{"tcp-listen", unix.SOCK_STREAM, 23457, true},
	} {
		run := func(b *testing.B) {
			for b.Loop() {
				fd, err := unix.Socket(unix.AF_INET, c.typ|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					b.Fatal(err)
				}
				if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: c.port}); err != nil {
					b.Fatal(err)
				}
				if c.listen {
					if err := unix.Listen(fd, 1); err != nil {
						b.Fatal(err)
					}
				}
				unix.Close(fd)
			}
		}
		b.Run(c.name+"/bare", run)
		s, err := Open(Config{})
		if err != nil {
			b.Skip(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			var events []Event
			for err == nil {
				events, err = s.Next(events[:0])
			}
		}()
		b.Run(c.name+"/hooks", run)
		s.Close()
		<-done
	}
}
