//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The ends at which a part of a subject runs.
const (
	roleHost  = "host"
	roleGuest = "guest"
)

// A bed is a running subject with the workers that use it.
type bed struct {
	subject     *subject
	spawner     *spawner
	dir         string // sockets and other files of the subject
	host, guest *namespace
	client      *worker
	server      *worker
	parts       map[string]*process // the subject's own processes by role
	broken      error               // why this bed is not used any more
}

// newBed starts a subject with its workers and waits until they reach each
// other. The processes belong to the spawner; close frees the rest.
func newBed(ctx context.Context, sub *subject, s *spawner, congestion string) (_ *bed, err error) {
	b := &bed{subject: sub, spawner: s, dir: filepath.Join(s.dir, sub.name), parts: make(map[string]*process)}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		return nil, err
	}
	if b.host, err = newNamespace(congestion); err != nil {
		return nil, err
	}
	b.guest = b.host
	if sub.start != nil {
		if b.guest, err = newNamespace(congestion); err != nil {
			return nil, err
		}
	}
	from, to := b.host, b.guest
	if sub.reach {
		from, to = to, from
	}
	if b.server, err = startWorker(s, to, sub.name+" server", cmdServer); err != nil {
		return nil, err
	}
	if b.client, err = startWorker(s, from, sub.name+" client", cmdClient); err != nil {
		return nil, err
	}
	// The server listens before it answers its first call.
	if err := b.server.call(ctx, "Quiet", patience, nil); err != nil {
		return nil, errors.Join(err, b.server.ended())
	}
	if sub.start != nil {
		if err := sub.start(b); err != nil {
			return nil, err
		}
	}
	return b, b.awaitReachable(ctx)
}

// close lets go of the namespaces.
func (b *bed) close() {
	for _, n := range []*namespace{b.host, b.guest} {
		if n != nil {
			n.Close() // closing the one namespace of a direct bed twice is harmless
		}
	}
}

// startPart starts a process of the subject in the namespace of its role.
func (b *bed) startPart(role, name string, cmd *exec.Cmd) error {
	ns := b.host
	if role == roleGuest {
		ns = b.guest
	}
	p, err := b.spawner.start(ns, name, cmd)
	if err != nil {
		return err
	}
	b.parts[role] = p
	return nil
}

// startRelays starts both halves of a relay pair of this binary.
func (b *bed) startRelays(command string) error {
	for _, role := range []string{roleGuest, roleHost} {
		if err := b.startPart(role, b.subject.name+" "+role, self(command, role, b.dir)); err != nil {
			return err
		}
	}
	return nil
}

// awaitReachable waits until every service answers the client.
func (b *bed) awaitReachable(ctx context.Context) error {
	const limit = 10 * time.Second
	var refused error
	err := poll(limit, func() (bool, error) {
		if err := b.alive(); err != nil {
			return false, err
		}
		if refused = b.client.call(ctx, "CheckServices", b.subject.carries, nil); refused == nil {
			return true, nil
		}
		return false, context.Cause(ctx)
	})
	if errors.Is(err, errTimeout) {
		return fmt.Errorf("not reachable within %v: %w", limit, refused)
	}
	return err
}

// alive reports a process of the bed that has ended.
func (b *bed) alive() error {
	errs := []error{b.client.ended(), b.server.ended()}
	for _, p := range b.parts {
		errs = append(errs, p.ended())
	}
	return errors.Join(errs...)
}

// CheckServices tries every service that the subject carries once.
func (p *probes) CheckServices(carries Carries, _ *None) error {
	if carries.TCP {
		for _, port := range tcpPorts {
			fd, err := connectTo(unix.SOCK_STREAM, port)
			if err != nil {
				return err
			}
			if err := checkService(fd, port); err != nil {
				return fmt.Errorf("tcp port %d: %w", port, err)
			}
		}
	}
	if carries.UDP {
		fd, err := connectTo(unix.SOCK_DGRAM, portUDPEcho)
		if err != nil {
			return err
		}
		if err := checkService(fd, portUDPEcho); err != nil {
			return fmt.Errorf("udp port %d: %w", portUDPEcho, err)
		}
	}
	return nil
}

func checkService(fd, port int) (err error) {
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var buf [1]byte
	switch port {
	case portSink: // a byte that arrives is not seen from here
		return nil
	case portSource:
		_, err := unix.Read(fd, buf[:])
		return err
	default:
		if err := setPatience(fd, 500*time.Millisecond); err != nil {
			return err
		}
		return exchange(fd, &buf)
	}
}

// eachPart applies f to the pid of every part of the subject.
func eachPart[T any](b *bed, f func(pid int) (T, error)) (map[string]T, error) {
	values := make(map[string]T)
	for role, p := range b.parts {
		v, err := f(p.pid())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		values[role] = v
	}
	return values, nil
}

// pin binds all processes of the bed to one processor until restore is called.
func (b *bed) pin() (restore func() error, err error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	var one unix.CPUSet
	for cpu := range len(all) * 64 {
		if all.IsSet(cpu) { // the last wins: interrupts prefer the first
			one.Zero()
			one.Set(cpu)
		}
	}
	restore = func() error { return b.setAffinity(&all) }
	if err := b.setAffinity(&one); err != nil {
		return nil, errors.Join(err, restore())
	}
	return restore, nil
}

func (b *bed) setAffinity(cpus *unix.CPUSet) error {
	errs := []error{setAffinity(b.client.pid(), cpus), setAffinity(b.server.pid(), cpus)}
	for _, p := range b.parts {
		errs = append(errs, setAffinity(p.pid(), cpus))
	}
	return errors.Join(errs...)
}
