package acceptance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// guestRuns runs a program in the guest.
func (b *bed) guestRuns(program string, args ...string) (string, error) {
	b.t.Helper()
	return runFor(b.guest, patience, exec.Command(b.need(program), args...))
}

// F1: netcat in the guest and netcat on the host, both protocols and families.
func TestF1Netcat(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	for i, address := range []string{"127.0.0.1", "::1"} {
		port := fmt.Sprint(7000 + i)
		server := b.nc(b.host, "-nlkv", address, port)
		server.says("Listening")
		for _, to := range []string{"localhost", address} {
			client := b.nc(b.guest, to, port)
			talk.Chat(client, server, "to "+to)
			client.kill()
		}
		server = b.nc(b.host, "-nluv", address, port)
		server.says("Bound")
		talk.Chat(b.nc(b.guest, "-u", address, port), server, "datagram")
	}
}

// F2: nc -z tells the truth, of TCP and UDP.
func TestF2Netcat(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	b.hostEchoes("127.0.0.1:7000", "[::1]:7000")
	must(t, wait.Together(8, func(i int) error {
		args := [][]string{{"-zv"}, {"-zuv"}}[i%2]
		address := []string{"127.0.0.1", "::1"}[i/2%2]
		port, open := "7000", true
		if i >= 4 {
			port, open = "7001", false
		}
		_, err := b.guestRuns("nc.openbsd", append(args, address, port)...)
		if exit := (*exec.ExitError)(nil); !open && (!errors.As(err, &exit) || exit.ExitCode() != 1) || open && err != nil {
			return fmt.Errorf("nc %s %s %s: %v", args[0], address, port, err)
		}
		return nil
	}))
}

// F1: curl with a web server on the host.
func TestF1Curl(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	page := traffic.Noise(1 << 20)
	for _, address := range []string{"127.0.0.1:8080", "[::1]:8081"} {
		l := listen(t, here{b.host}, socket.Spec{Address: address})
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				_, _ = io.Copy(w, r.Body)
				return
			}
			_, _ = w.Write(page)
		})}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { server.Close() })
	}
	for _, port := range []string{"8080", "8081"} {
		out, err := b.guestRuns("curl", "-sS", "http://localhost:"+port)
		must(t, err)
		if out != string(page) {
			t.Errorf("port %s: curl got %d bytes, or others", port, len(out))
		}
		out, err = b.guestRuns("curl", "-sS", "--data", "what I said", "http://localhost:"+port)
		if err != nil || out != "what I said" {
			t.Errorf("port %s: curl posted, and got %q, %v", port, out, err)
		}
	}
	_, err := b.guestRuns("curl", "-sS", "http://localhost:8082")
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 7 { // "failed to connect"
		t.Errorf("curl of a closed port: %v", err)
	}
}

// F1: dig in the guest with a DNS server on the host, over UDP and TCP.
func TestF1Dig(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	b.need("dig")
	b.spawn(b.host, "dnsmasq", exec.Command(b.need("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null",
		"--no-resolv", "--no-hosts", "--no-daemon", "--user=root", "--pid-file=", "--port=5300",
		"--listen-address=127.0.0.1", "--listen-address=::1", "--bind-interfaces",
		"--address=/host.example/192.0.2.77", "--txt-record=big.example,"+strings.Repeat("x", 250)))
	wait.Eventually(t, patience, "dnsmasq serves", func() error {
		c, err := dial(b.host, "tcp", "[::1]:5300")
		if err == nil {
			c.Close()
		}
		return err
	})
	for _, server := range []string{"@127.0.0.1", "@::1"} {
		for _, flags := range [][]string{{"+notcp"}, {"+tcp"}, {"+tcp", "-b", "127.0.0.1"}, {"+notcp", "-b", "127.0.0.1"}} {
			if len(flags) > 1 && server == "@::1" {
				continue
			}
			args := append([]string{server, "-p", "5300", "+short", "+tries=2", "+time=5"}, flags...)
			out, err := b.guestRuns("dig", append(args, "host.example", "A")...)
			if strings.TrimSpace(out) != "192.0.2.77" {
				t.Errorf("dig %v: %q, %v", args, out, err)
			}
		}
	}
	started := time.Now()
	out, _ := b.guestRuns("dig", "@127.0.0.1", "-p", "5301", "+tries=1", "+time=10", "host.example")
	if took := time.Since(started); !strings.Contains(out, "refused") || took > 5*time.Second {
		t.Errorf("dig of a closed port, after %v: %q", took, out)
	}
}

// startRedis runs redis-server on the host, at both families.
func (b *bed) startRedis(port string) {
	b.t.Helper()
	b.need("redis-cli")
	b.spawn(b.host, "redis", exec.Command(b.need("redis-server"), "--port", port, "--bind", "127.0.0.1", "::1",
		"--save", "", "--dir", b.dir))
	wait.Eventually(b.t, patience, "redis serves", func() error {
		c, err := dial(b.host, "tcp", net.JoinHostPort("::1", port))
		if err == nil {
			c.Close()
		}
		return err
	})
}
