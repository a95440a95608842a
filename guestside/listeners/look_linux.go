package listeners

import (
	"context"
	"net"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/sockdiag"
	"github.com/vmbridge/vmbridge/guestside/wake"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// look asks the kernel for the sockets of p and publishes the difference.
func (t *Tracker) look(ctx context.Context, p *protocolState) {
	start := time.Now()
	periodic := p.plan.begin(start)
	p.looks++
	// What a look takes is measured in processor time, which has to be the
	// thread's: on a busy machine the clock would count the others' work.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime()
	dump, result, err := t.conn.Dump(p.dump[:0], p.number)
	dumped := threadTime() - before
	defer func() { p.plan.end(time.Now(), dumped, threadTime()-before) }()
	if err != nil {
		t.dumpFailed(p, err, start)
		return
	}
	if p.failing {
		p.failing = false
		t.detection.failed(p.number, nil)
		t.log.WithField("protocol", p.number).Info("listeners can be seen again")
	}
	p.dump = dump
	p.pass++
	p.seen = 0
	t.owners.Begin()

	t.match(p, dump, start)
	if p.number == sockdiag.UDP && p.seen < len(p.sockets) && !t.seeConnected(p, start) {
		return
	}
	if result.Chunks > 1 && p.seen < len(p.sockets) && !t.confirm(p, start) {
		return
	}
	t.forget(p)
	fresh := t.findOwners(ctx, p, t.settled(p, start), start)
	if periodic {
		t.checkHolders(p, start)
	}
	t.checkOwners(ctx, p, start)
	for _, s := range fresh {
		t.join(s)
	}
	t.publish()
}

// threadTime is the processor time that the calling thread has used.
func threadTime() time.Duration { return clock(unix.CLOCK_THREAD_CPUTIME_ID) }

// clock reads one of the kernel's clocks, 0 when there is no such clock.
func clock(id int32) time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(id, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// dumpFailed leaves everything as it is. The first failure is followed by
// another try soon, the rest by the usual ones.
func (t *Tracker) dumpFailed(p *protocolState, err error, now time.Time) {
	if p.failing {
		return
	}
	p.failing = true
	t.detection.failed(p.number, err)
	p.plan.at(now.Add(followUp1))
	t.log.WithError(err).WithField("protocol", p.number).Warn("listeners cannot be seen, what is known stays")
}

// match notes which known sockets the dump shows, and takes in those that are
// new.
func (t *Tracker) match(p *protocolState, dump []sockdiag.Socket, now time.Time) {
	first, last := t.clientPorts()
	for i := range dump {
		d := &dump[i]
		if s, ok := p.sockets[d.Cookie]; ok {
			if s.local == d.Local {
				p.see(s)
				continue
			}
			t.drop(p, s) // a socket that was bound anew
		}
		if _, ok := p.clients[d.Cookie]; ok {
			p.clients[d.Cookie] = p.pass
			continue
		}
		s := &socket{
			key:    keyOf(p.number, d, t.interfaceName),
			local:  d.Local,
			family: d.Family,
			cookie: d.Cookie,
			inode:  d.Inode,
			cgroup: d.CgroupID,
			due:    now,
		}
		if s.key.Port == 0 {
			continue
		}
		if p.number == sockdiag.UDP {
			port := d.Local.Port()
			call, age, bound := t.bound(d.Cookie)
			s.ephemeral = bound && call.Port == 0 || !bound && port >= first && port <= last
			if s.ephemeral && !t.ephemeral {
				p.clients[d.Cookie] = p.pass
				continue
			}
			s.due = now.Add(settleTime - age)
		}
		p.sockets[d.Cookie] = s
		p.ports[d.Local.Port()]++
		p.waiting = append(p.waiting, s)
		p.see(s)
	}
}

// bound tells who bound a UDP socket on purpose, and how long ago, as far as the
// hooks saw it.
func (t *Tracker) bound(cookie uint64) (call wake.Call, age time.Duration, ok bool) {
	if t.source == nil {
		return wake.Call{}, 0, false
	}
	if call, ok = t.source.Bound(cookie); !ok {
		return wake.Call{}, 0, false
	}
	return call, max(clock(unix.CLOCK_MONOTONIC)-call.Time, 0), true
}

// settled gives the sockets that are old enough to be reported now, and plans a
// dump for when the others are. Of the sockets of one key one has to be: the port
// must not go with it while there is another.
func (t *Tracker) settled(p *protocolState, now time.Time) (ready []*socket) {
	grown := map[message.Key]bool{}
	for _, s := range p.waiting {
		if !s.dropped && !s.due.After(now) {
			grown[s.key] = true
		}
	}
	waiting := p.waiting[:0]
	for _, s := range p.waiting {
		switch {
		case s.dropped:
		case s.due.After(now) && !grown[s.key] && len(t.groups[s.key]) == 0:
			p.plan.at(s.due)
			waiting = append(waiting, s)
		default:
			ready = append(ready, s)
		}
	}
	clear(p.waiting[len(waiting):])
	p.waiting = waiting
	if next := p.lastBind.Add(settleTime); next.After(now) {
		p.plan.at(next)
	}
	return ready
}

// seeConnected notes the UDP sockets that were connected after they had been
// reported. They stay listeners as long as they live: netcat connects its socket
// to the first client that it hears, and the conversation has to go on. It gives
// false when the kernel cannot be asked.
func (t *Tracker) seeConnected(p *protocolState, now time.Time) bool {
	dump, _, err := t.conn.DumpConnected(p.dump[:0], p.number)
	if err != nil {
		t.dumpFailed(p, err, now)
		return false
	}
	p.dump = dump
	for i := range dump {
		if s, ok := p.sockets[dump[i].Cookie]; ok && s.reported {
			p.see(s)
		}
	}
	return true
}

// confirm asks once more, because a dump of several chunks may have skipped
// what it did not show. It gives false when the kernel cannot be asked.
func (t *Tracker) confirm(p *protocolState, now time.Time) bool {
	dump, _, err := t.conn.Dump(p.dump[:0], p.number)
	if err != nil {
		t.dumpFailed(p, err, now)
		return false
	}
	p.dump = dump
	for i := range dump {
		if s, ok := p.sockets[dump[i].Cookie]; ok && s.local == dump[i].Local {
			p.see(s)
		}
	}
	return true
}

// forget drops what was not seen in this pass.
func (t *Tracker) forget(p *protocolState) {
	if p.seen < len(p.sockets) {
		for _, s := range p.sockets {
			if s.seen != p.pass {
				t.drop(p, s)
			}
		}
	}
	for cookie, seen := range p.clients {
		if seen != p.pass {
			delete(p.clients, cookie)
		}
	}
}

func (t *Tracker) drop(p *protocolState, s *socket) {
	t.leave(s)
	s.dropped = true
	delete(p.sockets, s.cookie)
	delete(p.doubtful, s)
	port := s.local.Port()
	if p.ports[port]--; p.ports[port] == 0 {
		delete(p.ports, port)
	}
}

// clientPorts reads ip_local_port_range. When it cannot be read, no port is a
// client's.
func (t *Tracker) clientPorts() (first, last uint16) {
	var buf [64]byte
	n, err := t.portRange.ReadAt(buf[:], 0)
	if n == 0 && err != nil {
		return 1, 0
	}
	return parsePortRange(string(buf[:n]))
}

func parsePortRange(text string) (first, last uint16) {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return 1, 0
	}
	a, err1 := strconv.ParseUint(fields[0], 10, 16)
	b, err2 := strconv.ParseUint(fields[1], 10, 16)
	if err1 != nil || err2 != nil {
		return 1, 0
	}
	return uint16(a), uint16(b)
}

// interfaceName names an interface by its index.
func (t *Tracker) interfaceName(index uint32) string {
	if name, ok := t.ifnames[index]; ok {
		return name
	}
	ifi, err := net.InterfaceByIndex(int(index))
	if err != nil {
		return ""
	}
	t.ifnames[index] = ifi.Name
	return ifi.Name
}
