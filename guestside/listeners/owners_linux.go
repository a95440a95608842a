package listeners

import (
	"context"
	"time"

	"github.com/vmbridge/vmbridge/guestside/owner"
	"github.com/vmbridge/vmbridge/guestside/sockdiag"
	"github.com/vmbridge/vmbridge/guestside/wake"
)

const (
	// searchTime bounds the search for the holders of sockets that no hook told
	// the process of, which delays their report: it takes milliseconds, unless
	// the machine is busy. firstSearchTime is for those older than the tracker.
	searchTime      = 500 * time.Millisecond
	firstSearchTime = 2 * time.Second
	// An owner that is not known, or made the socket for somebody else, is
	// looked for again: soon, then ever more rarely.
	firstCheck = 20 * time.Millisecond
	lastCheck  = 5 * time.Minute
	checkRatio = 4
)

// findOwners finds out whose the sockets are that are about to be reported, and
// gives those that are to be. A socket that no hook told the process of may be
// closed by now, since the hooks forget it then: another dump, which is cheap,
// comes before the search, which is not, and also after a search in vain.
func (t *Tracker) findOwners(ctx context.Context, p *protocolState, fresh []*socket, now time.Time) (ready []*socket) {
	var unknown []*socket
	for _, s := range fresh {
		process, ok := t.caller(p, s)
		switch {
		case ok:
			s.process = process
			ready = append(ready, s)
		case s.search == searchedInVain:
			ready = append(ready, s)
		case s.search == notSearched && t.ready:
			s.search = searchNext
			p.lookAgain(s, now)
		default:
			unknown = append(unknown, s)
		}
	}
	if len(unknown) > 0 {
		t.publish() // what has gone need not wait for the search
		limit := searchTime
		if p.pass == 1 {
			limit = firstSearchTime
		}
		t.search(ctx, unknown, limit)
	}
	for _, s := range unknown {
		if s.process.PID == 0 && s.inode != 0 && t.ready {
			s.search = searchedInVain
			p.lookAgain(s, now)
		} else {
			ready = append(ready, s)
		}
	}
	for _, s := range ready {
		t.settleOwner(p, s, now)
	}
	return ready
}

// caller gives the process that made a socket wait, as the hooks saw it, if that
// process lives.
func (t *Tracker) caller(p *protocolState, s *socket) (owner.Process, bool) {
	if t.source == nil || !t.callers {
		return owner.Process{}, false
	}
	var call wake.Call
	var ok bool
	if p.number == sockdiag.UDP {
		call, ok = t.source.Bound(s.cookie)
	} else {
		call, ok = t.source.Listener(s.family, s.local)
		// Calls are remembered by address: one of another namespace may have
		// taken the place of ours.
		ok = ok && t.owners.InNetns(call.PID)
	}
	if !ok {
		return owner.Process{}, false
	}
	return t.owners.Process(call.PID)
}

// search looks for the holders of sockets.
func (t *Tracker) search(ctx context.Context, sockets []*socket, limit time.Duration) {
	wanted := make(map[uint32]uint64, len(sockets))
	for _, s := range sockets {
		if s.inode != 0 {
			wanted[s.inode] = s.cgroup
		}
	}
	if len(wanted) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found := t.owners.Holders(ctx, wanted)
	for _, s := range sockets {
		if process, ok := found[s.inode]; ok && s.inode != 0 {
			s.process = process
		}
	}
}

// settleOwner draws the conclusions from a socket's process.
func (t *Tracker) settleOwner(p *protocolState, s *socket, now time.Time) {
	delete(p.doubtful, s)
	if s.own = s.process.PID == t.self; s.own {
		return
	}
	s.container = t.owners.Container(s.cgroup, s.process.PID)
	_, alive := t.owners.Process(s.process.PID)
	if alive && !s.process.IsLauncher() || s.inode == 0 {
		s.checkStep = 0
		return
	}
	s.checkStep = min(max(s.checkStep*checkRatio, firstCheck), lastCheck)
	s.nextCheck = now.Add(s.checkStep)
	p.doubtful[s] = struct{}{}
}

// checkHolders marks the sockets whose process is gone, or is another program
// by now: somebody has inherited them.
func (t *Tracker) checkHolders(p *protocolState, now time.Time) {
	for _, s := range p.sockets {
		if !s.reported || s.own || s.process.PID == 0 {
			continue
		}
		if process, alive := t.owners.Process(s.process.PID); !alive || process.Name != s.process.Name {
			s.nextCheck, s.checkStep = now, 0
			p.doubtful[s] = struct{}{}
		}
	}
}

// checkOwners looks again for owners that were in doubt.
func (t *Tracker) checkOwners(ctx context.Context, p *protocolState, now time.Time) {
	var due []*socket
	for s := range p.doubtful {
		if s.reported && !s.nextCheck.After(now) {
			due = append(due, s)
		}
	}
	if len(due) == 0 {
		return
	}
	t.search(ctx, due, searchTime)
	for _, s := range due {
		t.settleOwner(p, s, now)
		if s.own {
			t.leave(s)
		} else {
			t.dirty[s.key] = struct{}{}
		}
	}
}

// renameContainers takes over the names of containers that became known.
func (t *Tracker) renameContainers() {
	for key, sockets := range t.groups {
		first := sockets[0]
		if first.container.ID == "" || first.container.Name != "" {
			continue
		}
		for _, s := range sockets {
			s.container = t.owners.Container(s.cgroup, s.process.PID)
		}
		t.dirty[key] = struct{}{}
	}
}
