package acceptance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/socket"
)

// A context of the command docker, with TLS on both sides: as the link names it, as the
// current one, and as a variable. What is not to be reached is not.
func TestDockerLinkContext(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t, guestWire.v4.AsSlice())
	address := guestWire.v4.String() + ":2376"
	v := newVM(t, bedConfig{}, vmConfig{wired: true, flags: []string{"--tlsverify", "--tlscacert", certs.path("ca.pem"),
		"--tlscert", certs.path("server.pem"), "--tlskey", certs.path("server.key"), "--host", "tcp://" + address}})
	b := v.b
	b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
	config := filepath.Join(b.dir, "docker")
	docker := func(args ...string) {
		t.Helper()
		cmd := exec.Command(v.docker, append([]string{"--config", config}, args...)...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=", "DOCKER_CONTEXT=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docker %v: %v: %s", args, err, out)
		}
	}
	endpoint := "host=tcp://" + address + ",ca=" + certs.path("ca.pem")
	docker("context", "create", "remote", "--docker", endpoint+",cert="+certs.path("cert.pem")+",key="+certs.path("key.pem"))
	docker("context", "create", "stranger", "--docker", endpoint)
	environ := b.config.environ
	start := func(link string, variables ...string) {
		t.Helper()
		b.config.environ = append(append(environ[:len(environ):len(environ)], "DOCKER_HOST=", "DOCKER_CONFIG="+config), variables...)
		b.config.url = link
		b.startDaemon()
	}
	for _, c := range []struct {
		link      string
		variables []string
	}{
		{"docker://remote", []string{"DOCKER_CONTEXT=stranger"}},
		{"docker://", []string{"DOCKER_CONTEXT=remote"}},
		{"docker://", []string{"DOCKER_HOST=tcp://" + address, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + certs.dir}},
	} {
		start(c.link, c.variables...)
		b.reach("tcp", "127.0.0.1:7000")
		b.daemon.terminate()
	}
	docker("context", "use", "remote")
	start("docker://")
	b.reach("tcp", "127.0.0.1:7000")
	b.daemon.terminate()

	start("docker://stranger")
	b.awaitDown("context stranger", "tcp://"+address, "certificate")
	b.daemon.terminate()
	start("docker://nobody")
	b.awaitDown("context nobody cannot be read", "docker context ls")
}

// certificates are a directory of those of an engine and its client.
type certificates struct{ dir string }

func (c certificates) path(name string) string { return filepath.Join(c.dir, name) }

// newCertificates makes an authority, an engine at an address, and a client.
func newCertificates(t *testing.T, address net.IP) certificates {
	t.Helper()
	c := certificates{t.TempDir()}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		return k
	}
	write := func(name, kind string, der []byte) {
		must(t, os.WriteFile(c.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	authorityKey := key()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	sign := func(serial int64, name string, k *ecdsa.PrivateKey, template *x509.Certificate) []byte {
		if template != authority {
			template.SerialNumber, template.Subject = big.NewInt(serial), pkix.Name{CommonName: name}
			template.NotBefore, template.NotAfter = authority.NotBefore, authority.NotAfter
		}
		der, err := x509.CreateCertificate(rand.Reader, template, authority, &k.PublicKey, authorityKey)
		must(t, err)
		return der
	}
	write("ca.pem", "CERTIFICATE", sign(1, "authority", authorityKey, authority))
	for i, end := range []struct {
		certificate, key string
		template         x509.Certificate
	}{
		{"server.pem", "server.key", x509.Certificate{IPAddresses: []net.IP{address}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}},
		{"cert.pem", "key.pem", x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}},
	} {
		k := key()
		write(end.certificate, "CERTIFICATE", sign(int64(i+2), end.certificate, k, &end.template))
		der, err := x509.MarshalECPrivateKey(k)
		must(t, err)
		write(end.key, "EC PRIVATE KEY", der)
	}
	return c
}
