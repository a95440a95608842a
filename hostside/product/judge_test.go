package product

import (
	"slices"
	"testing"
)

// fakeMachine has processes by pid; each that is a forwarder runs.
type fakeMachine struct {
	processes map[int]Process
	looks     int // at single processes
	lists     int
}

func (m *fakeMachine) process(pid int) (p, parent Process) {
	m.looks++
	return m.processes[pid], Process{}
}

func (m *fakeMachine) forwarders() (vms []VM) {
	m.lists++
	for _, p := range m.processes {
		if vm, ok := identify(p, Process{}); ok && !slices.Contains(vms, vm) {
			vms = append(vms, vm)
		}
	}
	return vms
}

func hostagent(instance string) Process { return started("/usr/bin/limactl", "hostagent", instance) }

func relay(id string) Process {
	return started(`C:\WSL\wslrelay.exe`, "--mode", "1", "--vm-id", "{"+id+"}")
}

func TestJudge(t *testing.T) {
	const a, b = "0cb41c0b-fd26-4a41-8370-dccb048e216e", "440371b8-ec9a-4297-b404-c5a6db08616d"
	backend := started("/x/com.docker.backend")
	nginx := started("/usr/sbin/nginx")
	type links map[string]string
	for name, c := range map[string]struct {
		links   links // vm is the link in question
		holder  Process
		others  []Process // that run as well
		carried bool
		note    string
		unknown bool
	}{
		"the link's VM":               {links: links{"vm": "lima://dev"}, holder: hostagent("dev"), others: []Process{hostagent("x"), backend}, carried: true},
		"another VM":                  {links: links{"vm": "lima://dev"}, holder: hostagent("x"), note: "another VM than the link's"},
		"another product":             {links: links{"vm": "lima://dev"}, holder: backend, note: "another VM than the link's"},
		"a VM of ours":                {links: links{"vm": "sandbox:"}, holder: hostagent("dev"), note: "another VM than the link's"},
		"a device of ours":            {links: links{"vm": "vhost-user:///x?cid=3"}, holder: hostagent("dev"), note: "another VM than the link's"},
		"no product":                  {links: links{"vm": "lima://dev"}, holder: nginx, unknown: true},
		"silent, alone":               {links: links{"vm": "vsock://3:732"}, holder: hostagent("dev"), others: []Process{nginx}, carried: true, note: "taken for the link's VM, as there is no other"},
		"silent, two VMs":             {links: links{"vm": "vsock://3:732"}, holder: hostagent("dev"), others: []Process{hostagent("x")}, note: `perhaps the link's, which does not say so: the forwarder of Lima "x" runs as well`},
		"silent, two products":        {links: links{"vm": "exec:ssh vm"}, holder: hostagent("dev"), others: []Process{backend}, note: "perhaps the link's, which does not say so: the forwarder of Docker Desktop runs as well"},
		"silent, two links":           {links: links{"vm": "vsock://3:732", "b": "tcp://vm:1"}, holder: hostagent("dev"), note: `perhaps the link's, which does not say so: link "b" could lead there as well`},
		"silent, another is outright": {links: links{"vm": "vsock://3:732", "b": "lima://dev"}, holder: hostagent("dev"), note: `perhaps the link's, which does not say so: link "b" leads to that VM`},
		"silent beside the sandbox":   {links: links{"vm": "vsock://3:732", "b": "sandbox:"}, holder: hostagent("dev"), carried: true, note: "taken for the link's VM, as there is no other"},
		"Podman's default":            {links: links{"vm": "podman-machine://"}, holder: started("gvproxy", "-forward-sock", "/podman/x-api.sock"), others: []Process{hostagent("dev")}, carried: true, note: "taken for the link's VM, as there is no other"},
		"WSL":                         {links: links{"vm": "wsl://Ubuntu"}, holder: relay(a), carried: true},
		"Hyper-V, WSL's VM":           {links: links{"vm": "hyperv://" + a + ":732"}, holder: relay(a), carried: true},
		"Hyper-V, another VM":         {links: links{"vm": "hyperv://" + b + ":732"}, holder: relay(a), note: "another VM than the link's"},
		"Docker in WSL":               {links: links{"vm": "docker://desktop-linux"}, holder: relay(a), others: []Process{backend}, carried: true, note: "taken for the link's VM, as there is no other"},
		"Docker, WSL runs":            {links: links{"vm": "docker://"}, holder: backend, others: []Process{relay(a)}, carried: true, note: "taken for the link's VM, as there is no other"},
		"WSL, Docker has it":          {links: links{"vm": "wsl://"}, holder: backend, note: "another VM than the link's"},
	} {
		m := &fakeMachine{processes: map[int]Process{1: c.holder}}
		for i, p := range c.others {
			m.processes[i+2] = p
		}
		vms := map[string]VM{}
		for link, url := range c.links {
			vms[link] = OfLink(url)
		}
		got := judge(vms, []Held{{Link: "vm", PID: 1}}, m)[0]
		if got.Known == c.unknown || got.Carried != c.carried || got.Note != c.note {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// However many ports one process holds, it is looked at once.
func TestJudgeLooksOnce(t *testing.T) {
	m := &fakeMachine{processes: map[int]Process{1: hostagent("dev")}}
	held := slices.Repeat([]Held{{Link: "vm", PID: 1}, {Link: "vm"}}, 200)
	for i, v := range judge(map[string]VM{"vm": {}}, held, m) {
		if v.Carried != (held[i].PID == 1) {
			t.Fatalf("%d: %+v", i, v)
		}
	}
	if m.looks != 1 || m.lists != 1 {
		t.Errorf("%d looks at a process, %d at all", m.looks, m.lists)
	}
}
