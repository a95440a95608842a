package vhostvsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Messages of the vhost-user protocol, as QEMU's documentation has them
// (docs/interop/vhost-user.rst). All of it has the machine's byte order, and the
// machines we are built for are little-endian.
type request uint32

const (
	getFeatures         request = 1
	setFeatures         request = 2
	setOwner            request = 3
	resetOwner          request = 4
	setMemTable         request = 5
	setVringNum         request = 8
	setVringAddr        request = 9
	setVringBase        request = 10
	getVringBase        request = 11
	setVringKick        request = 12
	setVringCall        request = 13
	setVringErr         request = 14
	getProtocolFeatures request = 15
	setProtocolFeatures request = 16
	setVringEnable      request = 18
	getConfig           request = 24
)

const (
	protocolVersion = 1
	flagVersion     = 3
	flagReply       = 4
	flagNeedReply   = 8

	messageHeaderBytes = 12
	// maxMessage is more than any message here has: that is a table of eight
	// regions, 264 bytes, or a configuration space, 12 and at most 256.
	maxMessage = 512

	noDescriptor = 1 << 8 // in the argument of kick, call and err
)

// Features of the device, and of the protocol.
const (
	featureEventIndex       = 1 << 29
	featureProtocolFeatures = 1 << 30
	featureVersion1         = 1 << 32
	deviceFeatures          = featureEventIndex | featureProtocolFeatures | featureVersion1

	protocolReplyAck = 1 << 3
	protocolConfig   = 1 << 9
	protocolFeatures = protocolReplyAck | protocolConfig
)

// message is a request and the descriptors that came with it, which are closed
// by whoever handles the message unless somebody has set them to -1.
type message struct {
	request   request
	needReply bool
	body      []byte
	fds       []int
}

var (
	errShort    = errors.New("the message is too short")
	errTooLarge = errors.New("the message is too large")
)

// readMessage waits for the next message.
func readMessage(conn *net.UnixConn) (m message, err error) {
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	head := make([]byte, messageHeaderBytes)
	rights := make([]byte, rightsBytes)
	n, rightsN, flags, _, err := conn.ReadMsgUnix(head, rights)
	if n == 0 && err == nil {
		err = io.EOF
	}
	if err != nil {
		return m, err
	}
	if m.fds, err = parseRights(rights[:rightsN], flags); err != nil {
		return m, err
	}
	if _, err := io.ReadFull(conn, head[n:]); err != nil {
		return m, err
	}
	m.request = request(binary.LittleEndian.Uint32(head))
	bits := binary.LittleEndian.Uint32(head[4:])
	size := binary.LittleEndian.Uint32(head[8:])
	if bits&flagVersion != protocolVersion || bits&flagReply != 0 {
		return m, fmt.Errorf("message %d has flags %#x", m.request, bits)
	}
	if size > maxMessage {
		return m, fmt.Errorf("message %d: %w", m.request, errTooLarge)
	}
	m.needReply = bits&flagNeedReply != 0
	m.body = make([]byte, size)
	_, err = io.ReadFull(conn, m.body)
	return m, err
}

func (m *message) close() {
	for _, fd := range m.fds {
		if fd >= 0 {
			closeDescriptor(fd)
		}
	}
	m.fds = nil
}

// take gives the only descriptor of the message to the caller.
func (m *message) take() (int, error) {
	if len(m.fds) != 1 {
		return -1, fmt.Errorf("%d descriptors came where one belongs", len(m.fds))
	}
	fd := m.fds[0]
	m.fds[0] = -1
	return fd, nil
}

// words reads the first n numbers of 64 bits of the message.
func (m *message) words(n int) ([]uint64, error) {
	if len(m.body) < 8*n {
		return nil, errShort
	}
	words := make([]uint64, n)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(m.body[8*i:])
	}
	return words, nil
}

func writeReply(conn *net.UnixConn, r request, body []byte) error {
	b := make([]byte, messageHeaderBytes, messageHeaderBytes+len(body))
	binary.LittleEndian.PutUint32(b[0:], uint32(r))
	binary.LittleEndian.PutUint32(b[4:], protocolVersion|flagReply)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(body)))
	_, err := conn.Write(append(b, body...))
	return err
}

func word64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
