package forward

import (
	"context"
	"fmt"
	"time"

	"github.com/vmbridge/vmbridge/hostside/portowner"
	"github.com/vmbridge/vmbridge/hostside/product"
)

// naming is a conflict whose owner is to be looked up.
type naming struct {
	claim    *claim
	conflict *conflict
}

const (
	// findTimeout bounds the look-up of owners; a conflict is told after it even
	// without a name.
	findTimeout = 5 * time.Second
	// lookAgain is how long an answer holds that has a product in it. Another
	// program may have taken the port between two tries of ours, or another link
	// have come that says where it leads; a port that is carried must not hide that.
	lookAgain = 30 * time.Second
)

// nameOwner has the owner of a port in conflict looked up.
func (e *Engine) nameOwner(c *claim) {
	e.unnamed = append(e.unnamed, naming{c, c.conflict})
	signal(e.lookUp)
}

// nameOwners finds who holds the ports in conflict, all that have come together
// in one scan of the system.
func (e *Engine) nameOwners() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.lookUp:
		}
		e.mu.Lock()
		batch := e.unnamed
		e.unnamed = nil
		ports := make([]portowner.Port, len(batch))
		held := make([]product.Held, len(batch))
		for i, n := range batch {
			ports[i] = portowner.Port{Protocol: string(n.claim.fwd.listener.Protocol), At: n.conflict.at}
			held[i].Link = n.claim.fwd.link.name
		}
		e.mu.Unlock()
		if len(batch) == 0 {
			continue
		}
		owners, verdicts := e.owners(ports, held)
		e.change(func() {
			for i, n := range batch {
				if n.claim.conflict == n.conflict { // else it is over, or another one
					n.claim.owned(e, ports[i], owners[i], verdicts[i])
				}
			}
		})
	}
}

// owners looks at the system, which takes its time. Both answers are as long as the
// questions, whatever is known.
func (e *Engine) owners(ports []portowner.Port, held []product.Held) ([]portowner.Owner, []product.Verdict) {
	ctx, cancel := context.WithTimeout(e.ctx, findTimeout)
	defer cancel()
	found, err := e.cfg.find(ctx, ports)
	if err != nil && e.ctx.Err() == nil {
		e.log.WithError(err).Debug("owners of ports are unknown")
	}
	owners := make([]portowner.Owner, len(ports))
	copy(owners, found)
	for i, o := range owners {
		held[i].PID = o.PID
	}
	var links map[string]product.VM
	if e.cfg.VMs != nil {
		links = e.cfg.VMs()
	}
	verdicts := make([]product.Verdict, len(ports))
	if e.cfg.judge != nil {
		copy(verdicts, e.cfg.judge(ctx, links, held))
	}
	return owners, verdicts
}

// owned is what is known of who has the port of a claim.
func (c *claim) owned(e *Engine, p portowner.Port, o portowner.Owner, v product.Verdict) {
	if !c.conflict.named {
		c.conflict.named = true
		e.dirty[c.fwd] = struct{}{}
	}
	c.conflict.product, c.conflict.looked, c.conflict.by = v.Known, time.Now(), product.VM{}
	switch {
	case v.Carried:
		c.conflict.by = v.By
		c.set(e, Carried, fmt.Sprintf("%s %s is carried by %s, %s%s; %s", p.Protocol, p.At, v.By, o, note(v), letGo(v.By)))
	case v.Known:
		c.set(e, Conflict, fmt.Sprintf("%s %s is in use by %s, the forwarder of %s%s", p.Protocol, p.At, o, v.By, note(v)))
	default:
		c.set(e, Conflict, fmt.Sprintf("%s %s is in use by %s", p.Protocol, p.At, o))
	}
}

func note(v product.Verdict) string {
	if v.Note == "" {
		return ""
	}
	return " (" + v.Note + ")"
}

// letGo says how a port that is carried comes to be ours.
func letGo(by product.VM) string {
	if by.Switch() == "" {
		return "it has no switch for that, and opens here when it lets go"
	}
	return "it opens here when it lets go: " + by.Switch()
}
