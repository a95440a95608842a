package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Rule decides about the listeners that match all of its criteria; zero ones
// match everything. It ignores them, or forwards them, also UDP clients and ports
// that are ignored otherwise.
type Rule struct {
	// Name is how reasons name the rule: "ports.rules[2]".
	Name     string
	Protocol message.Protocol
	// GuestAddress is the address that the guest bound. 0.0.0.0 matches a
	// dual-stack listener on ::, too.
	GuestAddress netip.Addr
	// First and Last are the guest's ports; both are 0 for any.
	First, Last uint16
	// Container, Image and Process are patterns (path.Match). Container is the name
	// of the container. Image is the name of its image, with or without the tag and
	// the registry: nginx matches docker.io/library/nginx:1.27. Process is the
	// kernel's name of the process, inside of containers or not: 15 bytes at most.
	Container, Image, Process string

	Ignore bool
	// HostAddress is the one address of this machine to open. Zero opens what the
	// guest bound. Here a wildcard may be wider than that: who wrote the rule
	// wants it so.
	HostAddress netip.Addr
	// HostPort is this machine's port for First; those of the following ports
	// follow. 0 opens the guest's own.
	HostPort uint16
}

func (r *Rule) validate() error {
	switch {
	case r.Protocol != "" && r.Protocol != message.TCP && r.Protocol != message.UDP:
		return fmt.Errorf("protocol %q: want %q or %q", r.Protocol, message.TCP, message.UDP)
	case (r.First == 0) != (r.Last == 0) || r.First > r.Last:
		return fmt.Errorf("ports %d to %d", r.First, r.Last)
	case r.HostPort != 0 && r.First == 0:
		return errors.New("another port for every port")
	case int(r.HostPort)+int(r.Last-r.First) > 65535:
		return fmt.Errorf("ports %d to %d do not fit at %d", r.First, r.Last, r.HostPort)
	case r.Ignore && (r.HostPort != 0 || r.HostAddress.IsValid()):
		return errors.New("it ignores and forwards")
	}
	for _, a := range []netip.Addr{r.GuestAddress, r.HostAddress} {
		if a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("address %s: want an IPv4 or IPv6 address without zone", a)
		}
	}
	if a := r.HostAddress; a.IsMulticast() || a == broadcast {
		return fmt.Errorf("address %s: nobody can listen there", a)
	}
	for _, pattern := range []string{r.Container, r.Image, r.Process} {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	return nil
}

// verdict is what a rule says to a listener.
type verdict int

const (
	no verdict = iota
	yes
	// unknown: it depends on a name of the owner that has not come yet.
	unknown
)

// matches compares the rule with a listener. For unknown it says what is missing.
func (r *Rule) matches(l message.Listener) (v verdict, missing string) {
	if r.Protocol != "" && r.Protocol != l.Protocol || r.First != 0 && (l.Port < r.First || l.Port > r.Last) {
		return no, ""
	}
	if r.GuestAddress.IsValid() && r.GuestAddress != l.Address && !(l.DualStack && r.GuestAddress == wildcard4) {
		return no, ""
	}
	// What is known to differ decides, whatever is missing.
	v = yes
	o := l.Owner
	if r.Process != "" {
		switch {
		case o.Process == "":
			v, missing = unknown, "name of the process"
		case !match(r.Process, o.Process):
			return no, ""
		}
	}
	if r.Container == "" && r.Image == "" {
		return v, missing
	}
	switch {
	case o.Container != "":
		if r.Container != "" && !match(r.Container, o.Container) || r.Image != "" && !matchImage(r.Image, o.Image) {
			return no, ""
		}
		return v, missing
	case o.ContainerID == "" && o.Process != "":
		return no, "" // a process outside containers
	}
	return unknown, "name of the container"
}

// hostPort is this machine's port for one that the rule matches.
func (r *Rule) hostPort(guest uint16) uint16 {
	if r.HostPort == 0 {
		return guest
	}
	return r.HostPort + (guest - r.First)
}

func match(pattern, name string) bool {
	ok, _ := path.Match(pattern, name)
	return ok
}

// matchImage compares a pattern with all ways to write the name of an image. What
// has no registry is Docker Hub's, and what has no tag the latest.
func matchImage(pattern, image string) bool {
	if image == "" {
		return false
	}
	if match(pattern, image) {
		return true
	}
	name, _, digest := strings.Cut(image, "@")
	tag := ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i:]
	} else if !digest {
		tag = ":latest"
	}
	registry, rest, found := strings.Cut(name, "/")
	if !found || !strings.ContainsAny(registry, ".:") && registry != "localhost" {
		registry, rest = "docker.io", name
		if !found {
			rest = "library/" + name
		}
	}
	names := []string{registry + "/" + rest, rest}
	if registry == "docker.io" {
		names = append(names, strings.TrimPrefix(rest, "library/"))
	}
	for _, n := range names {
		if match(pattern, n) || tag != "" && match(pattern, n+tag) {
			return true
		}
	}
	return false
}
