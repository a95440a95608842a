package redirect

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	costCalls = 100_000
	costTurns = 50
	// costBound is what one more call to connect may cost.
	costBound = 2 * time.Microsecond
)

// rawAddress is an address as system calls have it, so that measuring costs
// nothing but the call.
func rawAddress(port uint16) *unix.RawSockaddrInet4 {
	return &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port<<8 | port>>8, Addr: [4]byte{127, 0, 0, 1}}
}

func timeCall(trap uintptr, a ...uintptr) (time.Duration, error) {
	var args [6]uintptr
	copy(args[:], a)
	began := time.Now()
	_, _, errno := syscall.RawSyscall6(trap, args[0], args[1], args[2], args[3], args[4], args[5])
	took := time.Since(began)
	if errno != 0 {
		return 0, errno
	}
	return took, nil
}

// costs are the calls that are measured, each with a guest listener, on the
// calling thread.
var costs = []struct {
	name string
	// open prepares; the returned function makes one call and tells its time.
	open func() (once func() (time.Duration, error), closed func(), err error)
}{
	{"connect", connectCost},
	{"sendto", sendCost},
	{"bind", bindCost},
}

// boundSocket is a socket of a guest's server.
func boundSocket(kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
}

func connectCost() (func() (time.Duration, error), func(), error) {
	l, err := boundSocket(unix.SOCK_STREAM)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Listen(l, 64); err != nil {
		return nil, nil, err
	}
	to := rawAddress(port)
	return func() (time.Duration, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		// A reset in the end leaves no TIME_WAIT, of which there would be too many.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return 0, err
		}
		took, err := timeCall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(to)), unsafe.Sizeof(*to))
		if err != nil {
			return 0, err
		}
		accepted, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return 0, err
		}
		return took, unix.Close(accepted)
	}, func() { unix.Close(l) }, nil
}

func sendCost() (func() (time.Duration, error), func(), error) {
	l, err := boundSocket(unix.SOCK_DGRAM)
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	to, buf := rawAddress(port), make([]byte, 64)
	return func() (time.Duration, error) {
		took, err := timeCall(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0,
			uintptr(unsafe.Pointer(to)), unsafe.Sizeof(*to))
		if err != nil {
			return 0, err
		}
		_, _, err = unix.Recvfrom(l, buf, 0)
		return took, err
	}, func() { unix.Close(l); unix.Close(fd) }, nil
}

func bindCost() (func() (time.Duration, error), func(), error) {
	to := rawAddress(port)
	return func() (time.Duration, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		return timeCall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(to)), unsafe.Sizeof(*to))
	}, func() {}, nil
}

// TestCost holds G6 and the bound on what a call with a guest listener costs:
// 100,000 calls with the programs and as many without, in turns. The machine's
// pace changes all the time, so each turn is compared with the one before it.
func TestCost(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement")
	}
	for _, c := range costs {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			b.serveHost("tcp", port+1)
			a := startAgent(t, b.guest, nil)
			var bare, more []time.Duration // of each turn
			err := b.guest.do(func() error {
				once, closed, err := c.open()
				if err != nil {
					return err
				}
				defer closed()
				for range costTurns {
					before, err := turn(once)
					if err != nil {
						return err
					}
					a.must("attach", both)
					// The programs are at work.
					b.guest.expect(t, call{Network: "tcp", To: fmt.Sprintf("127.0.0.1:%d", port+1)}, "host")
					after, err := turn(once)
					if err != nil {
						return err
					}
					a.must("detach", nil)
					bare, more = append(bare, before), append(more, after-before)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			without, difference := median(bare), median(more)
			t.Logf("%d calls each: %v without, %v more with, ratio %.2f",
				costCalls, without, difference, 1+float64(difference)/float64(without))
			if difference > costBound {
				t.Errorf("%s costs %v more, want at most %v", c.name, difference, costBound)
			}
		})
	}
}

// turn gives the median of many calls.
func turn(once func() (time.Duration, error)) (time.Duration, error) {
	samples := make([]time.Duration, 0, costCalls/costTurns)
	for len(samples) < cap(samples) {
		took, err := once()
		if err != nil {
			return 0, err
		}
		samples = append(samples, took)
	}
	return median(samples), nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
