//go:build linux

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// A subject is one way from the host namespace to the guest namespace.
type subject struct {
	name    string // in flags and files
	title   string // says in the table's legend what it is
	carries Carries
	// start starts the subject's processes on a bed; nil when client and
	// server share a namespace.
	start func(*bed) error
	// describe says how the subject runs here, once it is reachable; nil when
	// there is nothing to say.
	describe func(*bed) (string, error)
	// missing says why the subject cannot run on this machine, or "".
	missing func() string
}

// Carries says what a subject can do.
type Carries struct {
	TCP, UDP bool
	// FreshPorts: it follows listeners that come and go.
	FreshPorts bool
}

// Names of the subjects.
const (
	direct    = "direct"
	splice    = "splice"
	mux       = "yamux"
	datagrams = "udprelay"
	pasta     = "pasta"
	vmbridge  = "vmbridge"
)

// subjects lists all subjects; binaries is the directory of vmbridge's.
func subjects(binaries string) []*subject {
	return []*subject{
		{name: direct, title: "loopback of one namespace", carries: Carries{TCP: true, UDP: true, FreshPorts: true}},
		{name: splice, title: "two bare relays over one unix socket per connection, splice both ways", carries: Carries{TCP: true}, start: startSplice},
		{name: datagrams, title: "two bare UDP relays over a unix datagram socket, one datagram per system call", carries: Carries{UDP: true}, start: startDatagrams},
		{name: mux, title: "two relays over one unix socket with go-yamux v5", carries: Carries{TCP: true}, start: startYamux},
		{name: pasta, title: "passt's pasta, one process in both namespaces", carries: Carries{TCP: true, UDP: true}, start: startPasta, missing: pastaMissing},
		{name: vmbridge, title: "vmbridge over one unix socket", carries: Carries{TCP: true, UDP: true, FreshPorts: true},
			start:    func(b *bed) error { return startVMBridge(b, binaries) },
			describe: func(b *bed) (string, error) { return describeVMBridge(b, binaries) },
			missing:  func() string { return vmbridgeMissing(binaries) }},
	}
}

// chooseSubjects returns the subjects of a comma-separated list, all for "".
func chooseSubjects(all []*subject, list string) ([]*subject, error) {
	return choose(all, func(s *subject) string { return s.name }, list)
}

// choose returns the elements that a comma-separated list names, in the order
// of all; an empty list names all.
func choose[T any](all []T, name func(T) string, list string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	var names []string
	for _, v := range all {
		names = append(names, name(v))
	}
	wanted := strings.Split(list, ",")
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return nil, fmt.Errorf("unknown %q: choose from %s", w, strings.Join(names, ","))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(v T) bool { return !slices.Contains(wanted, name(v)) }), nil
}

// executable says why path cannot be run, or "".
func executable(path string) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err.Error()
	case info.IsDir() || info.Mode()&0o111 == 0:
		return path + " is not executable"
	}
	return ""
}
