package netstack

import (
	"encoding/binary"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// headerSize is that of struct virtio_net_hdr.
	headerSize = 10
	// Of struct virtio_net_hdr, all in the machine's byte order.
	flagsAt, typeAt, headerLengthAt, segmentSizeAt, checksumStartAt, checksumOffsetAt = 0, 1, 2, 4, 6, 8

	needsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	segmentsTCP4  = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	segmentsTCP6  = 4 // VIRTIO_NET_HDR_GSO_TCPV6

	// smallRead has room for most packets that carry no bulk, largeRead for the
	// rest of any other.
	smallRead = 2048
	largeRead = 65536
	// copyBelow is when a rest is copied, rather than occupy a large buffer.
	copyBelow = 16384

	maxPacket = 65535
	// maxParts is UIO_MAXIOV, how many pieces one write may have.
	maxParts = 1024
)

// link is the TUN device as gVisor sees it. gVisor's own link for descriptors
// (fdbased) does no segmentation offload for a TUN device, and so no checksum
// offload for what it sends.
type link struct {
	fd  int
	raw syscall.RawConn
	set func(time.Time) error // the read deadline
	mtu uint32

	dispatcher stack.NetworkDispatcher // set before start
	handshakes chan *stack.PacketBuffer
	ended      chan struct{} // by the reader
	writing    sync.WaitGroup
	started    sync.Once

	// Of the reader.
	header       [headerSize]byte
	small, large *buffer.View
	parts        [3][]byte
	n            int
	errno        error
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

func newLink(device *os.File, mtu uint32) (*link, error) {
	raw, err := device.SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &link{raw: raw, set: device.SetReadDeadline, mtu: mtu,
		handshakes: make(chan *stack.PacketBuffer, maxHandshakes), ended: make(chan struct{})}
	if err := raw.Control(func(fd uintptr) { l.fd = int(fd) }); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *link) start() {
	l.started.Do(func() {
		l.writing.Go(l.writeHandshakes)
		go l.read()
	})
}

// settleTime is how long the device is read after its owner has ceased to send
// clients here. One of them may have been interrupted between the look at the
// address and its first packet, and whatever is not answered now never is.
const settleTime = 20 * time.Millisecond

// stop ends the goroutines.
func (l *link) stop() {
	_ = l.set(time.Now().Add(settleTime))
	<-l.ended
	l.writing.Wait()
}

// read hands packets to the stack until stop, or until the device is gone.
func (l *link) read() {
	defer close(l.ended)
	defer l.releaseViews()
	try := func(fd uintptr) bool {
		l.n, l.errno = unix.Readv(int(fd), l.parts[:])
		return l.errno != unix.EAGAIN
	}
	for {
		l.prepareViews()
		if err := l.raw.Read(try); err != nil {
			return
		}
		switch {
		case l.errno == unix.EINTR:
		case l.errno != nil || l.n == 0:
			return
		case l.n > headerSize:
			l.deliver(l.n - headerSize)
		}
	}
}

func (l *link) prepareViews() {
	if l.small == nil {
		l.small = buffer.NewViewSize(smallRead)
	}
	if l.large == nil {
		l.large = buffer.NewViewSize(largeRead)
	}
	l.parts = [3][]byte{l.header[:], l.small.AsSlice(), l.large.AsSlice()}
}

func (l *link) releaseViews() {
	l.small.Release()
	l.large.Release()
}

// deliver hands over the packet of n bytes that is in the views.
func (l *link) deliver(n int) {
	var payload buffer.Buffer
	small := l.small
	l.small = nil
	small.CapLength(min(n, smallRead))
	protocol := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber)
	if header.IPVersion(small.AsSlice()) == header.IPv6Version {
		protocol = header.IPv6ProtocolNumber
	}
	_ = payload.Append(small)
	if rest := n - smallRead; rest >= copyBelow {
		l.large.CapLength(rest)
		_ = payload.Append(l.large)
		l.large = nil
	} else if rest > 0 {
		_ = payload.Append(buffer.NewViewWithData(l.large.AsSlice()[:rest]))
	}
	packet := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: payload})
	l.dispatcher.DeliverNetworkPacket(protocol, packet)
	packet.DecRef()
}

// WritePackets implements stack.LinkWriter. The device takes packets at once or
// not at all, so the poller is not asked.
func (l *link) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	for i, packet := range packets.AsSlice() {
		if answersSYN(packet) && l.writeLater(packet) {
			continue
		}
		if err := l.write(packet); err != nil {
			return i, err
		}
	}
	return packets.Len(), nil
}

// answersSYN tells whether a packet is the SYN-ACK of a handshake.
func answersSYN(packet *stack.PacketBuffer) bool {
	if packet.TransportProtocolNumber != header.TCPProtocolNumber {
		return false
	}
	const both = header.TCPFlagSyn | header.TCPFlagAck
	return header.TCP(packet.TransportHeader().Slice()).Flags()&both == both
}

// maxHandshakes is how many SYN-ACKs may wait for their writer.
const maxHandshakes = 256

// writeLater leaves a SYN-ACK to a goroutine. gVisor sends it with the
// connection locked, the kernel answers within the write, and the processor of the
// answer tries for the lock until it has it: on one CPU that took whole time
// slices. Nothing overtakes a SYN-ACK, as nothing else is sent before its answer.
func (l *link) writeLater(packet *stack.PacketBuffer) bool {
	select {
	case l.handshakes <- packet.IncRef():
		return true
	default:
		packet.DecRef()
		return false
	}
}

// writeHandshakes is that goroutine.
func (l *link) writeHandshakes() {
	for {
		select {
		case packet := <-l.handshakes:
			_ = l.write(packet) // what is lost is sent again
			packet.DecRef()
		case <-l.ended:
			return
		}
	}
}

func (l *link) write(packet *stack.PacketBuffer) tcpip.Error {
	var first [headerSize]byte
	describe(first[:], packet)
	var array [8][]byte
	parts := append(array[:0], first[:])
	views, offset := packet.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		part := v.AsSlice()
		skip := min(offset, len(part))
		if offset -= skip; len(part) > skip {
			parts = append(parts, part[skip:])
		}
	}
	if len(parts) > maxParts {
		// Each small write of a slow connection is a piece of its own.
		parts = [][]byte{slices.Concat(parts...)}
	}
	for {
		_, err := unix.Writev(l.fd, parts)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &tcpip.ErrNoBufferSpace{} // as good as lost on the way
		}
		return nil
	}
}

// describe fills the virtio_net_hdr of a packet: the kernel may take the
// checksum of TCP for granted, and the segments of a long packet.
func describe(h []byte, packet *stack.PacketBuffer) {
	gso := packet.GSOOptions
	if gso.Type == stack.GSONone {
		return
	}
	order := binary.NativeEndian
	order.PutUint16(h[headerLengthAt:], uint16(packet.HeaderSize()))
	if gso.NeedsCsum {
		h[flagsAt] = needsChecksum
		order.PutUint16(h[checksumStartAt:], gso.L3HdrLen)
		order.PutUint16(h[checksumOffsetAt:], gso.CsumOffset)
	}
	if packet.Data().Size() > int(gso.MSS) {
		h[typeAt] = segmentsTCP4
		if gso.Type == stack.GSOTCPv6 {
			h[typeAt] = segmentsTCP6
		}
		order.PutUint16(h[segmentSizeAt:], gso.MSS)
	}
}

// The rest is what stack.LinkEndpoint asks for.

func (l *link) MTU() uint32                           { return l.mtu }
func (l *link) SetMTU(mtu uint32)                     { l.mtu = mtu }
func (*link) MaxHeaderLength() uint16                 { return 0 }
func (*link) LinkAddress() tcpip.LinkAddress          { return "" }
func (*link) SetLinkAddress(tcpip.LinkAddress)        {}
func (*link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (*link) AddHeader(*stack.PacketBuffer)           {}
func (*link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (*link) Close()                                  {}
func (*link) Wait()                                   {}
func (*link) SetOnCloseAction(func())                 {}
func (*link) GSOMaxSize() uint32                      { return maxPacket }
func (*link) SupportedGSO() stack.SupportedGSO        { return stack.HostGSOSupported }
func (l *link) Attach(d stack.NetworkDispatcher)      { l.dispatcher = d }
func (l *link) IsAttached() bool                      { return l.dispatcher != nil }
func (*link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}
