package redirect

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// run runs a program in the guest and gives its output.
func (b *bed) run(name string, args ...string) (string, error) {
	b.t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		b.t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*patience)
	defer cancel()
	var out bytes.Buffer
	err := b.guest.do(func() error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("?\n"), &out, &out
		return cmd.Run()
	})
	return out.String(), err
}

// TestNetcat holds F1 and F2 for nc as people type it.
func TestNetcat(t *testing.T) {
	b := newBed(t)
	b.serveHost("tcp", port)
	b.serveHost("udp", port)
	b.attach(both)
	for _, args := range [][]string{
		{"-4", "localhost"}, {"-6", "::1"}, {"0.0.0.0"}, {"-s", "127.0.0.1", "127.0.0.1"},
		{"-u", "-4", "localhost"}, {"-u", "-6", "::1"},
	} {
		out, err := b.run("nc", append(append([]string{"-w", "1"}, args...), fmt.Sprint(port))...)
		if err != nil || !strings.HasPrefix(out, "host ") {
			t.Errorf("nc %v: %q, %v", args, out, err)
		}
	}
	if out, err := b.run("nc", "-z", "-v", "127.0.0.1", fmt.Sprint(port)); err != nil || !strings.Contains(out, "succeeded") {
		t.Errorf("nc -z to a port of the host: %q, %v", out, err)
	}
	if out, err := b.run("nc", "-z", "-v", "127.0.0.1", "9"); err == nil || !strings.Contains(out, "refused") {
		t.Errorf("nc -z to a closed port: %q, %v", out, err)
	}
}

// names prints what a Python program sees of its own sockets: of a TCP
// connection, a connected and an unconnected UDP socket, for each form of
// loopback, and the order in which glibc has the addresses of localhost.
const names = `
import socket, sys
port = int(sys.argv[1])
for family, to in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1"),
                   (socket.AF_INET6, "::ffff:127.0.0.1")):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        s.settimeout(5)
        s.connect((to, port))
        s.send(b"?")
        who = s.recv(100).split()[0].decode()
        print(to, who, s.getpeername()[:2], s.getsockname()[0])
        s.close()
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.sendto(b"?", (to, port))
    data, peer = s.recvfrom(100)
    print(to, data.split()[0].decode(), peer[:2])
    s.close()
print([a[4][0] for a in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)])
`

// TestPython holds F8: a program sees of the host's server exactly what it sees
// of one of the guest's own.
func TestPython(t *testing.T) {
	b := newBed(t)
	native := []*server{b.guest.serve(t, "host", "tcp", at8080("::")), b.guest.serve(t, "host", "udp", at8080("::"))}
	want, err := b.run("python3", "-c", names, fmt.Sprint(port))
	if err != nil {
		t.Fatalf("%v: %s", err, want)
	}
	for _, s := range native {
		s.close()
	}
	b.serveHost("tcp", port)
	b.serveHost("udp", port)
	b.attach(both)
	got, err := b.run("python3", "-c", names, fmt.Sprint(port))
	if err != nil || got != want {
		t.Errorf("%v, got\n%swant\n%s", err, got, want)
	}
}
