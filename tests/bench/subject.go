//go:build linux

package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
)

// A subject is one way from the host namespace to the guest namespace, or, where
// reach is set, from the guest namespace to the host namespace.
type subject struct {
	name    string // in flags and files
	column  string // of the table; "" is that of the name
	title   string // says in the table's legend what it is
	carries Carries
	reach   bool
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
	// Refuses: it could carry every port, and has to tell which are closed.
	Refuses bool
}

// Names of the subjects.
const (
	direct    = "direct"
	splice    = "splice"
	mux       = "yamux"
	datagrams = "udprelay"
	pasta     = "pasta"
	vmbridge  = "vmbridge"

	pastaReach    = "pasta-reach"
	vmbridgeReach = "vmbridge-reach"
)

// subjects lists all subjects; binaries is the directory of vmbridge's.
func subjects(binaries string) []*subject {
	return []*subject{
		{name: direct, title: "loopback of one namespace", carries: Carries{TCP: true, UDP: true, FreshPorts: true, Refuses: true}},
		{name: splice, title: "two bare relays over one unix socket per connection, splice both ways", carries: Carries{TCP: true}, start: startSplice},
		{name: datagrams, title: "two bare UDP relays over a unix datagram socket, one datagram per system call", carries: Carries{UDP: true}, start: startDatagrams},
		{name: mux, title: "two relays over one unix socket with go-yamux v5", carries: Carries{TCP: true}, start: startYamux},
		{name: pasta, title: "passt's pasta, one process in both namespaces", carries: Carries{TCP: true, UDP: true},
			start: func(b *bed) error { return startPasta(b, "-t", "-u", "-T", "-U") }, missing: pastaMissing},
		{name: vmbridge, title: "vmbridge over one unix socket", carries: Carries{TCP: true, UDP: true, FreshPorts: true},
			start:    func(b *bed) error { return startVMBridge(b, binaries) },
			describe: func(b *bed) (string, error) { return describeVMBridge(b, binaries) },
			missing:  func() string { return vmbridgeMissing(binaries) }},
		{name: pastaReach, column: pasta, title: "pasta from the guest to the host", carries: Carries{TCP: true, UDP: true}, reach: true,
			start: func(b *bed) error { return startPasta(b, "-T", "-U", "-t", "-u") }, missing: pastaMissing},
		{name: vmbridgeReach, column: vmbridge, title: "vmbridge's host reach", carries: Carries{TCP: true, UDP: true, Refuses: true}, reach: true,
			start:   func(b *bed) error { return startVMBridge(b, binaries) },
			missing: func() string { return vmbridgeMissing(binaries) }},
	}
}

// files gives the table's column of a subject's samples, and what stands before
// the keys of their rows. Where client and server share a namespace, both
// directions are the same.
func (s *subject) files() (column string, prefixes []string) {
	column = cmp.Or(s.column, s.name)
	switch {
	case s.start == nil:
		return column, []string{"", reachPrefix}
	case s.reach:
		return column, []string{reachPrefix}
	}
	return column, []string{""}
}

// reachPrefix begins the keys of rows from the guest to the host.
const reachPrefix = "reach."

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
