package product

import (
	"context"
	"slices"
	"strings"

	"github.com/shirou/gopsutil/v4/process"
)

// system is the machine that this runs on.
type system struct{ ctx context.Context }

func (s system) process(pid int) (p, parent Process) {
	this, err := process.NewProcessWithContext(s.ctx, int32(pid))
	if err != nil {
		return p, parent // it has ended
	}
	p = s.read(this)
	if p.program() != "ssh" {
		return p, parent
	}
	if up, err := this.ParentWithContext(s.ctx); err == nil {
		parent = s.read(up)
	}
	return p, parent
}

// read leaves out what the system does not tell.
func (s system) read(p *process.Process) (out Process) {
	out.Name, _ = p.NameWithContext(s.ctx)
	out.Path, _ = p.ExeWithContext(s.ctx)
	out.Args, _ = p.CmdlineSliceWithContext(s.ctx)
	return out
}

// prefixes are how the names of the programs of identify begin. Systems cut names,
// some after 15 bytes.
var prefixes = []string{"limactl", "ssh", "host-switch", "wslrelay", "wslhost", "com.docker", "vpnkit",
	"gvproxy", "crc", "orbstack helper", "macvmgr"}

func (s system) forwarders() []VM {
	all, err := process.ProcessesWithContext(s.ctx)
	if err != nil {
		return nil
	}
	var vms []VM
	for _, p := range all {
		name, err := p.NameWithContext(s.ctx)
		if err != nil || !slices.ContainsFunc(prefixes, func(prefix string) bool {
			return strings.HasPrefix(strings.ToLower(name), prefix)
		}) || !near(int(p.Pid)) {
			continue
		}
		if vm, ok := identify(s.process(int(p.Pid))); ok && !slices.Contains(vms, vm) {
			vms = append(vms, vm)
		}
	}
	return vms
}
