package acceptance

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/talk"
)

// Real netcat, both ways, as the README has it: TCP as server with -k and as a
// client that half-closes (-N), tells whether a port is open (-z), and gives up
// (-w).
func TestNetcatTCP(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	server := b.nc(b.guest, "-lkv", "0.0.0.0", "7000")
	b.view.port("tcp 0.0.0.0:7000", "open")
	for _, word := range []string{"first", "second"} { // -k: the server takes another one
		client := b.nc(b.host, "localhost", "7000")
		talk.Chat(client, server, word)
		client.kill()
	}

	file := b.nc(b.guest, "-l", "127.0.0.1", "7001")
	b.view.port("tcp 127.0.0.1:7001", "open")
	client := b.nc(b.host, "-N", "127.0.0.1", "7001")
	client.Types("a file")
	must(t, client.In.Close())
	<-client.done // only when the server has closed, too
	file.Shows("a file\n")
	<-file.done

	nc := b.need("nc.openbsd")
	if _, err := runFor(b.host, patience, exec.Command(nc, "-zv", "127.0.0.1", "7000")); err != nil {
		t.Errorf("an open port: %v", err)
	}
	_, err := runFor(b.host, patience, exec.Command(nc, "-zv", "127.0.0.1", "7002"))
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a closed port: %v", err)
	}
	started := time.Now()
	if _, err := runFor(b.host, patience, exec.Command(nc, "-w", "1", "127.0.0.1", "7000")); err != nil {
		t.Errorf("-w 1: %v", err)
	}
	if took := time.Since(started); took < time.Second {
		t.Errorf("-w 1 took %v", took)
	}
}

// Real netcat over UDP: a server that answers its first client, for longer than
// it takes until every kind of detection has looked again, and one that hears
// many.
func TestNetcatUDP(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	server := b.nc(b.guest, "-luv", "0.0.0.0", "7000")
	b.view.port("udp 0.0.0.0:7000", "open")
	client := b.nc(b.host, "-u", "127.0.0.1", "7000")
	talk.Chat(client, server, "first")
	// netcat has connected its socket to the client: nobody else is served. Then
	// it is no listener any more, but the conversation goes on.
	for i, started := 0, time.Now(); time.Since(started) < 11*time.Second; i++ {
		talk.Chat(client, server, fmt.Sprint("again ", i))
	}

	many := b.nc(b.guest, "-lkuv", "0.0.0.0", "7001")
	b.view.port("udp 0.0.0.0:7001", "open")
	for i := range 3 {
		b.nc(b.host, "-u", "127.0.0.1", "7001").Types(fmt.Sprint("client ", i))
		many.Shows(fmt.Sprint("client ", i))
	}
}
