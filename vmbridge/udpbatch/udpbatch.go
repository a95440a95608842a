package udpbatch

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// MaxPayload is the largest UDP payload: 65535 bytes less the IPv4 and UDP
// headers.
const MaxPayload = 65507

// Batch is the most datagrams that one ReadBatch passes on, and the most that
// one system call of WriteBatch takes.
const Batch = 64

// Datagram is one UDP datagram.
type Datagram struct {
	Payload []byte
	// Peer is the sender of a datagram read, the destination of one to write.
	// WriteBatch ignores it on connected sockets. IPv4 peers of a dual-stack
	// socket are IPv4 addresses here, never IPv4-mapped ones.
	Peer netip.AddrPort
	// Local is our own address: the one a datagram came to (with
	// Options.PacketInfo; for IPv4 broadcast and multicast, the one to reply
	// from), or the one to send from. The zero Addr leaves the choice to the
	// kernel.
	Local netip.Addr
}

// Options of a Conn. The zero value suits an unconnected socket that is bound
// to one address.
type Options struct {
	// PacketInfo learns the Local address of every datagram that is read.
	// Sockets bound to a wildcard address need it to reply from the address
	// they were asked at.
	PacketInfo bool
	// Connected says that the socket has a peer of its own.
	Connected bool
	// Pool lends the memory for reading. Conns should share one: without it a
	// Conn keeps memory of its own.
	Pool *Pool
	// SoftError, when set, hears of errors that concern a datagram rather than
	// the socket, such as a port unreachable answer (see IsRefused). ReadBatch
	// and WriteBatch call it, on the goroutine of their caller; it may close
	// the socket.
	SoftError func(error)
}

// Conn reads and writes one UDP socket in batches. Its socket stays the
// caller's: closing it ends ReadBatch, and deadlines set on it hold here.
type Conn struct {
	udp  *net.UDPConn
	raw  syscall.RawConn
	opts Options
	pool *Pool
	// inet6 says that the socket is of family AF_INET6, dual-stack or not.
	inet6 bool

	readMu sync.Mutex
	platformConn
}

// New prepares c for batches. It changes options of the socket, not its state.
func New(c *net.UDPConn, opts Options) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("udpbatch: %w", err)
	}
	b := &Conn{udp: c, raw: raw, opts: opts, pool: opts.Pool}
	if b.pool == nil {
		b.pool = NewPool(1)
	}
	if err := b.setup(); err != nil {
		return nil, fmt.Errorf("udpbatch: %s: %w", c.LocalAddr(), err)
	}
	return b, nil
}

// ReadBatch waits until datagrams are there, receives up to Batch of them at
// once and calls fn once with all; they are valid only until fn returns. fn
// must not wait for another ReadBatch, whose memory it may be holding.
//
// An error means that the socket is closed (net.ErrClosed) or that a deadline
// set by the caller has passed. Soft errors never end it. Calls queue up when
// several goroutines read at once.
func (c *Conn) ReadBatch(fn func([]Datagram)) error {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.readBatch(fn)
}

// WriteBatch sends ds in order and says how many of them the system took. It
// does not wait: what finds the socket's buffer full is dropped, as is a
// datagram that cannot be sent (too long, no route, forbidden), and neither is
// an error. An error means that the socket is closed.
//
// Several goroutines may write at once.
func (c *Conn) WriteBatch(ds []Datagram) (sent int, err error) {
	return c.writeBatch(ds)
}

// soft reports an error that is no reason to stop.
func (c *Conn) soft(err error) {
	if c.opts.SoftError != nil {
		c.opts.SoftError(err)
	}
}
