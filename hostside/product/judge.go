package product

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Held is a port that a link wants and that a process has.
type Held struct {
	Link string
	PID  int // 0 is unknown
}

// Verdict on a port that is held.
type Verdict struct {
	// Known says that the process is the forwarder of a VM, By.
	Known bool
	By    VM
	// Carried says that the VM is the link's.
	Carried bool
	// Note is what is to be said besides.
	Note string
}

// Judge looks at what is held, in the light of what all links say of their VMs. Its
// answer has the order of held.
func Judge(ctx context.Context, links map[string]VM, held []Held) []Verdict {
	return judge(links, held, system{ctx})
}

// machine is where processes are looked up.
type machine interface {
	// process gives a process and its parent, zero where there is none.
	process(pid int) (p, parent Process)
	// forwarders lists the VMs whose forwarders run.
	forwarders() []VM
}

func judge(links map[string]VM, held []Held, m machine) []Verdict {
	verdicts := make([]Verdict, len(held))
	type identity struct {
		vm VM
		ok bool
	}
	known := make(map[int]identity)
	var running []VM // nil until it is needed
	for i, h := range held {
		if h.PID == 0 {
			continue
		}
		id, seen := known[h.PID]
		if !seen {
			id.vm, id.ok = identify(m.process(h.PID))
			known[h.PID] = id
		}
		if !id.ok {
			continue
		}
		v := Verdict{Known: true, By: id.vm}
		switch compare(links[h.Link], id.vm) {
		case same:
			v.Carried = true
		case other:
			v.Note = "another VM than the link's"
		case maybe:
			if running == nil {
				running = append(m.forwarders(), id.vm)
			}
			if why := ambiguous(links, h.Link, id.vm, running); why != "" {
				v.Note = "perhaps the link's, which does not say so: " + why
			} else {
				v.Carried = true
				v.Note = "taken for the link's VM, as there is no other"
			}
		}
		verdicts[i] = v
	}
	return verdicts
}

// ambiguous says what else a forwarder could be than the one of the link's VM, or
// nothing.
func ambiguous(links map[string]VM, link string, vm VM, running []VM) string {
	for _, name := range slices.Sorted(maps.Keys(links)) { // the reason shall stay the same
		if name == link {
			continue
		}
		switch compare(links[name], vm) {
		case same:
			return fmt.Sprintf("link %q leads to that VM", name)
		case maybe:
			return fmt.Sprintf("link %q could lead there as well", name)
		}
	}
	for _, r := range running {
		together := r == vm || inWSL[r.Product] && vm.Product == WSL || inWSL[vm.Product] && r.Product == WSL
		if !together && compare(links[link], r) != other {
			return "the forwarder of " + r.String() + " runs as well"
		}
	}
	return ""
}
