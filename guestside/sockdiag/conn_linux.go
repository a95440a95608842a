package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInterrupted says that the kernel's table changed during a dump, several
// times in a row. What was known before the dump stays the best knowledge.
var ErrInterrupted = errors.New("socket table changed during the dump")

const (
	// receiveBuffer is the most that one read of a dump returns: the kernel
	// sizes its replies by the reader's buffer, up to 32 KiB.
	receiveBuffer = 32 << 10
	// receiveTimeout bounds a dump that the kernel does not answer. The kernel
	// works on a dump inside our own system calls, so it never comes to this.
	receiveTimeout = 2 * time.Second
	// attempts bounds how often an interrupted dump is tried.
	attempts = 3

	sockDiagByFamily  = 20 // SOCK_DIAG_BY_FAMILY
	sizeofRequest     = unix.NLMSG_HDRLEN + 56
	nlmFlagDumpIntr   = 0x10
	sizeofErrorNumber = 4
)

// Conn dumps the sockets of one network namespace. It is not safe for
// concurrent use.
type Conn struct {
	fd      int
	seq     uint32
	buf     []byte
	request [sizeofRequest]byte
	noIPv6  bool
}

// Open makes a Conn for the network namespace of the calling thread.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", os.NewSyscallError("socket", err))
	}
	tv := unix.NsecToTimeval(int64(receiveTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open sock_diag: %w", os.NewSyscallError("setsockopt", err))
	}
	return &Conn{fd: fd, buf: make([]byte, receiveBuffer)}, nil
}

// Close releases the socket. It is idempotent.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// Result says how a dump went.
type Result struct {
	// Chunks is the number of reads that carried sockets of one family, at
	// most: more than one means that the dump is not a snapshot.
	Chunks int
}

// Dump appends to dst the sockets of protocol p that wait for peers, of both
// families. A kernel without IPv6 has no IPv6 sockets, which is no error. After
// an error the result is dst as it was.
func (c *Conn) Dump(dst []Socket, p Protocol) ([]Socket, Result, error) {
	if p == UDP {
		return c.dump(dst, p, StateClose)
	}
	return c.dump(dst, p, StateListen)
}

// DumpConnected is Dump for sockets that have a peer.
func (c *Conn) DumpConnected(dst []Socket, p Protocol) ([]Socket, Result, error) {
	return c.dump(dst, p, StateEstablished)
}

func (c *Conn) dump(dst []Socket, p Protocol, state State) ([]Socket, Result, error) {
	var res Result
	all := dst
	for _, family := range [...]Family{IPv4, IPv6} {
		if family == IPv6 && c.noIPv6 {
			continue
		}
		some, chunks, err := c.dumpFamily(all, p, family, state)
		if family == IPv6 && isNoFamily(err) {
			c.noIPv6 = true
			continue
		}
		if isNoFamily(err) {
			return dst, Result{}, fmt.Errorf("dump %s sockets: the kernel lacks inet_diag or %[1]s_diag, or cannot load them: %w", p, err)
		}
		if err != nil {
			return dst, Result{}, fmt.Errorf("dump %s sockets of family %d: %w", p, family, err)
		}
		all = some
		res.Chunks = max(res.Chunks, chunks)
	}
	return all, res, nil
}

// isNoFamily tells an address family that this kernel does not have.
func isNoFamily(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT)
}

func (c *Conn) dumpFamily(dst []Socket, p Protocol, f Family, s State) ([]Socket, int, error) {
	for try := 1; ; try++ {
		all, chunks, err := c.dumpOnce(dst, p, f, s)
		if err == nil {
			return all, chunks, nil
		}
		if try == attempts || !(errors.Is(err, ErrInterrupted) || errors.Is(err, unix.EBUSY)) {
			return dst, 0, err
		}
	}
}

func (c *Conn) dumpOnce(dst []Socket, p Protocol, f Family, s State) ([]Socket, int, error) {
	if c.fd < 0 {
		return dst, 0, os.ErrClosed
	}
	c.seq++
	c.encodeRequest(p, f, s)
	if err := c.send(); err != nil {
		return dst, 0, err
	}
	interrupted := false
	for chunks := 0; ; chunks++ {
		b, err := c.receive()
		if err != nil {
			return dst, 0, err
		}
		for len(b) >= unix.NLMSG_HDRLEN {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.NLMSG_HDRLEN || n > len(b) {
				return dst, 0, fmt.Errorf("%w: netlink message of %d bytes where %d are left", ErrMalformed, n, len(b))
			}
			typ, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
			seq, payload := binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:n]
			b = b[min((n+3)&^3, len(b)):]
			if seq != c.seq {
				continue // the rest of a dump that was given up
			}
			interrupted = interrupted || flags&nlmFlagDumpIntr != 0
			switch typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if err := errorNumber(payload); err != nil {
					return dst, 0, err
				}
				if interrupted {
					return dst, 0, ErrInterrupted
				}
				return dst, chunks, nil
			case sockDiagByFamily:
				socket, err := Decode(payload)
				if err != nil {
					return dst, 0, err
				}
				dst = append(dst, socket)
			}
		}
	}
}

// errorNumber reads the negative errno that starts NLMSG_DONE and NLMSG_ERROR.
func errorNumber(payload []byte) error {
	if len(payload) < sizeofErrorNumber {
		return nil
	}
	if n := int32(binary.NativeEndian.Uint32(payload)); n < 0 {
		return unix.Errno(-n)
	}
	return nil
}

// encodeRequest fills in a nlmsghdr and an inet_diag_req_v2. No extensions are
// asked for: V6ONLY and the cgroup id always come.
func (c *Conn) encodeRequest(p Protocol, f Family, s State) {
	host, r := binary.NativeEndian, &c.request
	*r = [sizeofRequest]byte{}
	host.PutUint32(r[0:], sizeofRequest)
	host.PutUint16(r[4:], sockDiagByFamily)
	host.PutUint16(r[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	host.PutUint32(r[8:], c.seq)
	r[16], r[17] = uint8(f), uint8(p)
	host.PutUint32(r[20:], 1<<s)
	host.PutUint32(r[64:], ^uint32(0)) // INET_DIAG_NOCOOKIE
	host.PutUint32(r[68:], ^uint32(0))
}

func (c *Conn) send() error {
	for {
		_, err := unix.Write(c.fd, c.request[:])
		switch {
		case err == unix.EINTR:
		case err == unix.EBUSY:
			c.drain()
			return err
		default:
			return os.NewSyscallError("write", err)
		}
	}
}

func (c *Conn) receive() ([]byte, error) {
	for {
		n, err := unix.Read(c.fd, c.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("read", err)
		}
		return c.buf[:n], nil
	}
}

// drain reads what is left of a dump that was given up, so that the kernel
// accepts the next one.
func (c *Conn) drain() {
	for {
		if _, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_DONTWAIT); err != nil && err != unix.EINTR {
			return
		}
	}
}
