package transport_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// vsockPair connects over the loopback, CID 1, and never to a real host or
// guest. It skips the test where the kernel has no loopback.
func vsockPair(t testing.TB) (c1, c2 net.Conn) {
	t.Helper()
	l, e := vsockListen(t, transport.ListenOptions{ContextIDs: []uint32{1}})
	defer l.Close()
	c1, c2, err := pair(testContext(t), l, e)
	if err != nil {
		t.Fatal(err)
	}
	return c1, c2
}

// vsockListen binds to CID 1, which fails where there is no loopback. Dialling
// would not tell: without a loopback it asks the hypervisor.
func vsockListen(t testing.TB, opts transport.ListenOptions) (net.Listener, transport.Endpoint) {
	t.Helper()
	e := mustParse(fmt.Sprintf("vsock://1:%d", 1<<20+rand.IntN(1<<30)))
	l, err := e.Listen(testContext(t), opts)
	if err != nil {
		t.Skipf("AF_VSOCK has no loopback here (modprobe vsock_loopback): %v", err)
	}
	return l, e
}

// TestVSockFilter holds G5: a peer that is not the host is turned away.
func TestVSockFilter(t *testing.T) {
	refused := make(chan net.Addr, 1)
	l, e := vsockListen(t, transport.ListenOptions{Refused: func(a net.Addr) { refused <- a }})
	done := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	c, err := e.Dial(testContext(t), transport.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case <-refused:
	case <-time.After(deadline):
		t.Error("the loopback was not turned away")
	}
	l.Close()
	if err := <-done; err == nil {
		t.Error("accepted somebody")
	}
}
