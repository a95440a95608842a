package link

import (
	"encoding/binary"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A message that a host is unreachable does not end a connection; a reset does.
func TestSoftErrorsAreNoResets(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	raw, err := client.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	control := func(f func(fd int) error) {
		t.Helper()
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
			t.Fatal(err)
		}
		if failed != nil {
			t.Skipf("cannot make a soft error (needs CAP_NET_ADMIN and CAP_NET_RAW): %v", failed)
		}
	}
	control(func(fd int) error { return unreachable(fd, client) })
	control(func(fd int) error {
		if err := pendingError(uintptr(fd)); err != nil {
			t.Errorf("an ICMP message counts as %v", err)
		}
		if err := socketError(uintptr(fd)); err != unix.EHOSTUNREACH {
			t.Logf("the kernel has kept %v", err)
			return os.ErrInvalid
		}
		return nil
	})

	_ = server.(*net.TCPConn).SetLinger(0)
	_ = server.Close()
	_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
	err = raw.Read(func(fd uintptr) bool {
		err = pendingError(fd)
		return err != nil
	})
	if err != nil {
		t.Errorf("a reset is not seen: %v", err)
	}
}

// unreachable sends an ICMP message about a connection.
func unreachable(fd int, c net.Conn) error {
	const repair, queue, sequence, sendQueue, repairOff = 19, 20, 21, 2, -1 // TCP_REPAIR and its friends
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, repair, 1); err != nil {
		return os.NewSyscallError("TCP_REPAIR", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, queue, sendQueue); err != nil {
		return os.NewSyscallError("TCP_REPAIR_QUEUE", err)
	}
	next, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, sequence)
	if err != nil {
		return os.NewSyscallError("TCP_QUEUE_SEQ", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, repair, repairOff); err != nil {
		return os.NewSyscallError("TCP_REPAIR", err)
	}
	from, to := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	packet := make([]byte, 8+20+8)
	packet[0], packet[1] = 3, 1 // destination unreachable: host
	ip := packet[8:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], 40)
	copy(ip[12:], from.IP.To4())
	copy(ip[16:], to.IP.To4())
	tcp := ip[20:]
	binary.BigEndian.PutUint16(tcp, uint16(from.Port))
	binary.BigEndian.PutUint16(tcp[2:], uint16(to.Port))
	binary.BigEndian.PutUint32(tcp[4:], uint32(next))
	var sum uint32
	for i := 0; i < len(packet); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(packet[2:], ^uint16(sum+sum>>16))

	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return os.NewSyscallError("raw socket", err)
	}
	defer unix.Close(s)
	return os.NewSyscallError("send", unix.Sendto(s, packet, 0, &unix.SockaddrInet4{Addr: [4]byte(from.IP.To4())}))
}
