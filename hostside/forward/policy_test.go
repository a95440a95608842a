package forward

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

func TestPortRule(t *testing.T) {
	for _, s := range []string{"53", "22/tcp", "8000-8100/udp", "1-65535"} {
		r, err := ParsePortRule(s)
		if err != nil || r.String() != s {
			t.Errorf("%q: %q, %v", s, r, err)
		}
	}
	for _, s := range []string{"", "0", "65536", "9-8", "22/sctp", "22/", "-1", "1-", "a", "1-2-3", "22/tcp/udp"} {
		if r, err := ParsePortRule(s); !errors.Is(err, ErrPortRule) {
			t.Errorf("%q: %q, %v; want ErrPortRule", s, r, err)
		}
	}
}

func TestValidate(t *testing.T) {
	lan := netip.MustParseAddr("192.0.2.1")
	for _, p := range []Policy{
		{}, {Exposure: Mirror}, {Exposure: Loopback},
		{Rules: []Rule{{}, {Ignore: true}, {HostAddress: wildcard4}, {First: 1, Last: 65535, HostPort: 1},
			{First: 1, Last: 1, HostPort: 65535}, {First: 65535, Last: 65535, HostPort: 65535},
			{Protocol: message.UDP, GuestAddress: wildcard6, Container: "web-*", Image: "*/nginx", Process: "[a-z]*", HostAddress: lan}}},
	} {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, p := range []Policy{{Exposure: "world"}, {IgnoreProcesses: []string{"["}}} {
		if p.Validate() == nil {
			t.Errorf("%+v validates", p)
		}
	}
	for _, r := range []Rule{
		{Protocol: "sctp"}, {First: 1}, {Last: 1}, {First: 2, Last: 1}, {HostPort: 80},
		{First: 1, Last: 2, HostPort: 65535}, {First: 1, Last: 65535, HostPort: 2},
		{Ignore: true, HostAddress: lan}, {Ignore: true, First: 1, Last: 1, HostPort: 2},
		{GuestAddress: netip.MustParseAddr("::ffff:127.0.0.1")}, {HostAddress: netip.MustParseAddr("fe80::1%eth0")},
		{HostAddress: netip.MustParseAddr("224.0.0.1")}, {HostAddress: broadcast},
		{Container: "["}, {Image: "["}, {Process: "["},
	} {
		r.Name = "ports.rules[7]"
		if err := (Policy{Rules: []Rule{r}}).Validate(); err == nil || err.Error()[:len(r.Name)] != r.Name {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// TestImages: a pattern may leave out what everybody leaves out.
func TestImages(t *testing.T) {
	for _, c := range []struct {
		pattern string
		match   []string
		differ  []string
	}{
		{"nginx", []string{"nginx", "nginx:1.27", "library/nginx", "docker.io/library/nginx", "docker.io/library/nginx:1.27",
			"nginx@sha256:0123", "nginx:1.27@sha256:0123"}, []string{"", "nginx2", "team/nginx", "ghcr.io/team/nginx", "sha256:0123"}},
		{"nginx:1.27", []string{"nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27@sha256:0123"}, []string{"nginx", "nginx:1.2", "nginx@sha256:0123"}},
		{"nginx:latest", []string{"nginx", "docker.io/library/nginx"}, []string{"nginx:1.27", "nginx@sha256:0123"}},
		{"docker.io/library/nginx", []string{"nginx", "nginx:1.27", "docker.io/library/nginx:1"}, []string{"quay.io/library/nginx"}},
		{"team/app", []string{"team/app", "docker.io/team/app:2", "ghcr.io/team/app", "localhost:5000/team/app:1"}, []string{"app", "library/app"}},
		{"app", []string{"localhost/app", "registry.example:5000/app:3", "localhost:5000/app"}, []string{"team/app"}},
		{"ghcr.io/*/app:*", []string{"ghcr.io/team/app:1", "ghcr.io/team/app"}, []string{"team/app", "ghcr.io/a/b/app"}},
		{"*", []string{"nginx", "localhost/app:1"}, []string{"", "ghcr.io/team/app"}},
	} {
		for _, image := range c.match {
			if !matchImage(c.pattern, image) {
				t.Errorf("%q does not match %q", c.pattern, image)
			}
		}
		for _, image := range c.differ {
			if matchImage(c.pattern, image) {
				t.Errorf("%q matches %q", c.pattern, image)
			}
		}
	}
}
