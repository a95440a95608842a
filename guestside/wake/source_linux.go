package wake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
	"github.com/vmbridge/vmbridge/guestside/sockdiag"
)

const (
	// ringBytes holds some 2,700 events: more than a reader misses in the few
	// milliseconds between two looks, unless thousands of ports open at once,
	// when one event is as good as all.
	ringBytes = 64 << 10
	// overflowAfter is the number of events in one read after which some may
	// have found the ring full.
	overflowAfter = ringBytes / (eventSize + 8) / 2
	// rememberedListens bounds the memory of who called listen; the least
	// recently used goes first.
	rememberedListens = 16384
	// rememberedBinds bounds the UDP sockets that were bound on purpose and
	// are still open. Beyond it a socket is judged by its port alone.
	rememberedBinds = 65536
)

// Config says what to watch.
type Config struct {
	// AnyPort also wakes for UDP sockets bound to port 0.
	AnyPort bool
}

// Source is the set of programs that are attached, and their events. Methods
// may be called from several goroutines, Next from one at a time.
type Source struct {
	ring    *ebpf.Map
	ready   syscall.RawConn // of a duplicate of ring, to wait for events
	reader  *ringbuf.Reader
	record  ringbuf.Record
	listens *ebpf.Map
	binds   *ebpf.Map
	tcpErr  error
	udpErr  error

	mu        sync.Mutex
	closed    bool // reader is not to be asked any more
	closeOnce sync.Once
	closers   []io.Closer // in the order of opening
}

// Open attaches the programs for the network namespace of the calling thread.
// It succeeds when one of the halves can be had; TCP and UDP tell about each.
func Open(cfg Config) (*Source, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the limit on locked memory: %w", err)
	}
	s := &Source{}
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Name: "vmb_events", Type: ebpf.RingBuf, MaxEntries: ringBytes})
	if err != nil {
		return nil, fmt.Errorf("create the event ring: %w", err)
	}
	s.ring = ring
	s.closers = append(s.closers, ring)
	if s.reader, err = ringbuf.NewReader(ring); err != nil {
		s.Close()
		return nil, fmt.Errorf("read the event ring: %w", err)
	}
	s.closers = append(s.closers, s.reader)
	if err := s.openReady(); err != nil {
		s.Close()
		return nil, fmt.Errorf("wait for the event ring: %w", err)
	}
	s.tcpErr = s.attachTCP()
	s.udpErr = s.attachUDP(cfg)
	if s.tcpErr != nil && s.udpErr != nil {
		s.Close()
		return nil, fmt.Errorf("attach: %w; %w", s.tcpErr, s.udpErr)
	}
	return s, nil
}

// openReady registers the ring with Go's own poller. The reader's would keep a
// thread in epoll_wait, and an event would have to wake a second thread to be
// acted on, which on a busy machine doubles its delay.
func (s *Source) openReady() error {
	fd, err := unix.FcntlInt(uintptr(s.ring.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or Go does not poll it
		unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "event ring")
	s.closers = append(s.closers, f)
	s.ready, err = f.SyscallConn()
	return err
}

// TCP says why TCP listeners do not wake, nil when they do.
func (s *Source) TCP() error { return s.tcpErr }

// UDP says why UDP binds do not wake, nil when they do.
func (s *Source) UDP() error { return s.udpErr }

// Close detaches everything and makes Next return. It is idempotent.
func (s *Source) Close() error {
	var err error
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		for i := len(s.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, s.closers[i].Close())
		}
	})
	return err
}

func (s *Source) attachTCP() error {
	format, err := findTrace()
	if err != nil {
		return fmt.Errorf("tracepoint: %w", err)
	}
	calls, err := ebpf.NewMap(&ebpf.MapSpec{Name: "vmb_listens", Type: ebpf.LRUHash,
		KeySize: keySize, ValueSize: valueSize, MaxEntries: rememberedListens})
	if err != nil {
		return fmt.Errorf("create the map of listen calls: %w", err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "vmb_tcp", Type: ebpf.TracePoint,
		Instructions: tcpProgram(format, calls, s.ring), License: cgroupbpf.License})
	if err != nil {
		calls.Close()
		return fmt.Errorf("load the tracepoint program: %w", err)
	}
	defer prog.Close()
	event, err := attachTrace(format.id, prog)
	if err != nil {
		calls.Close()
		return fmt.Errorf("attach to the tracepoint: %w", err)
	}
	s.listens = calls
	s.closers = append(s.closers, calls, event)
	return nil
}

func (s *Source) attachUDP(cfg Config) (err error) {
	var opened []io.Closer
	defer func() {
		if err == nil {
			s.closers = append(s.closers, opened...)
			return
		}
		for _, c := range opened {
			c.Close()
		}
	}()
	root, err := cgroupbpf.OpenRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	// Not preallocated: a guest with few UDP servers pays for few.
	calls, err := ebpf.NewMap(&ebpf.MapSpec{Name: "vmb_binds", Type: ebpf.Hash, Flags: unix.BPF_F_NO_PREALLOC,
		KeySize: 8, ValueSize: valueSize, MaxEntries: rememberedBinds})
	if err != nil {
		return fmt.Errorf("create the map of bind calls: %w", err)
	}
	opened = append(opened, calls)

	netns := netnsCookie()
	release := releaseProgram(calls, s.ring)
	postBind := postBindProgram(calls, s.ring)
	bind := bindProgram(netns, cfg.AnyPort, calls)
	// In this order no bind is remembered whose release is not seen.
	for _, hook := range []ebpf.ProgramSpec{
		{Name: "vmb_release", Type: ebpf.CGroupSock, AttachType: ebpf.AttachCgroupInetSockRelease, Instructions: release},
		{Name: "vmb_post_bind4", Type: ebpf.CGroupSock, AttachType: ebpf.AttachCGroupInet4PostBind, Instructions: postBind},
		{Name: "vmb_post_bind6", Type: ebpf.CGroupSock, AttachType: ebpf.AttachCGroupInet6PostBind, Instructions: postBind},
		{Name: "vmb_bind4", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Bind, Instructions: bind},
		{Name: "vmb_bind6", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet6Bind, Instructions: bind},
	} {
		l, err := cgroupbpf.Attach(root, hook)
		if err != nil {
			return err
		}
		opened = append(opened, l)
	}
	s.binds = calls
	return nil
}

// netnsCookie gives the cookie of the calling thread's network namespace, 0
// when the kernel has none (before 5.14).
func netnsCookie() uint64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0
	}
	return cookie
}

// decodeEvent reads the eventSize bytes of an event: kind, port, and what the
// kind makes of the rest.
func decodeEvent(b []byte) Event {
	e := Event{Kind: Kind(binary.NativeEndian.Uint32(b)), Port: uint16(binary.NativeEndian.Uint32(b[4:]))}
	switch last := binary.NativeEndian.Uint64(b[8:]); e.Kind {
	case TCPListen, TCPClose:
		e.Thread = int(last)
	default:
		e.Cookie = last
	}
	return e
}

// available tells whether Next has something to read, be it the end.
func (s *Source) available() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || s.reader.AvailableBytes() > 0
}

// Next waits for events, appends all that are there to buf and returns it. It
// fails only once the Source is closed.
func (s *Source) Next(buf []Event) ([]Event, error) {
	if err := s.ready.Read(func(uintptr) bool { return s.available() }); err != nil {
		return buf, fmt.Errorf("wait for events: %w", err)
	}
	for n := 0; n < overflowAfter; n++ {
		if err := s.reader.ReadInto(&s.record); err != nil {
			return buf, fmt.Errorf("read events: %w", err)
		}
		if b := s.record.RawSample; len(b) >= eventSize {
			buf = append(buf, decodeEvent(b))
		}
		if s.record.Remaining == 0 {
			return buf, nil
		}
	}
	return append(buf, Event{Kind: Overflow}), nil
}

// call is the layout of the maps' values.
type call struct {
	Time      uint64
	PID       uint32
	Port      uint32
	Confirmed uint64
}

func (c *call) call() Call {
	return Call{Time: time.Duration(c.Time), PID: int(c.PID), Port: uint16(c.Port)}
}

// Listener tells who last called listen on a socket of this family and
// address, in any network namespace: the caller has to check that the process
// is in the right one. A listen call that chose the port itself (listen
// without bind) is not known.
func (s *Source) Listener(f sockdiag.Family, addr netip.AddrPort) (Call, bool) {
	if s.listens == nil {
		return Call{}, false
	}
	var key [keySize]byte
	a := addr.Addr().As16()
	copy(key[:], a[:])
	binary.NativeEndian.PutUint16(key[16:], addr.Port())
	binary.NativeEndian.PutUint16(key[18:], uint16(f))
	var c call
	if s.listens.Lookup(&key, &c) != nil {
		return Call{}, false
	}
	return c.call(), true
}

// Bound tells who bound the UDP socket with this cookie on purpose; false when
// nobody did, or before the Source was opened.
func (s *Source) Bound(cookie uint64) (Call, bool) {
	if s.binds == nil {
		return Call{}, false
	}
	var c call
	if s.binds.Lookup(&cookie, &c) != nil || c.Confirmed == 0 {
		return Call{}, false
	}
	return c.call(), true
}
