package isolation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Verdict is what all evidence says together.
type Verdict struct {
	State    State
	Findings []Finding // all, those that say on first, then those that do not know
	Warnings []string
}

// Judge joins the evidence. All that it returns is printable, each text one line.
func Judge(own Setting, host Host, guests []Guest) Verdict {
	var v Verdict
	if own.On {
		v.Findings = append(v.Findings, own.finding())
	}
	v.Findings = append(v.Findings, host.Findings...)
	v.Warnings = append(v.Warnings, host.Warnings...)
	var wsl []string
	for _, g := range guests {
		findings, warnings := g.evidence(host.OS)
		v.Findings = append(v.Findings, findings...)
		v.Warnings = append(v.Warnings, warnings...)
		if isWSL(g.Kernel) {
			wsl = append(wsl, g.Link)
		}
	}
	if len(wsl) > 0 && (host.OS == "windows" || host.WSL.Exists) {
		if w := host.WSL.warning(); w != "" {
			v.Warnings = append(v.Warnings, "guest of link "+strings.Join(wsl, ", ")+": "+w)
		}
	}
	for i, f := range v.Findings {
		v.Findings[i] = Finding{f.State, oneLine(f.Where), oneLine(f.What), oneLine(f.LockedBy), oneLine(f.Remedy)}
	}
	for i, w := range v.Warnings {
		v.Warnings[i] = oneLine(w)
	}
	slices.SortStableFunc(v.Findings, func(a, b Finding) int { return cmp.Compare(weight(b.State), weight(a.State)) })
	v.State = Unknown
	if len(v.Findings) > 0 {
		v.State = v.Findings[0].State // the strongest
	}
	return v
}

func (s Setting) finding() Finding {
	f := Finding{State: On, Where: s.Place, What: "isolation.enhanced_container_isolation is true", LockedBy: s.LockedBy,
		Remedy: "set isolation.enhanced_container_isolation to false"}
	if f.Where == "" {
		f.Where = "settings"
	}
	if s.LockedBy != "" {
		f.Remedy = "have the administrator change it"
	}
	return f
}

// evidence turns what an agent has told into findings and warnings. One that has
// told nothing, as while its link is down, gives none.
func (g Guest) evidence(goos string) (findings []Finding, warnings []string) {
	where := "guest of link " + g.Link
	add := func(state State, what, remedy string) {
		findings = append(findings, Finding{State: state, Where: where, What: what, Remedy: remedy})
	}
	for _, f := range g.Findings {
		switch f.Kind {
		case DefaultRuntime:
			add(On, detailed("sysbox is the engine's default runtime", f.Detail),
				"remove default-runtime from /etc/docker/daemon.json in the guest and restart its engine; in Docker Desktop's guest, "+isolationSwitch(goos))
		case SysboxProcess:
			add(On, detailed("sysbox is running", f.Detail),
				"stop the service sysbox in the guest; in Docker Desktop's guest, "+isolationSwitch(goos))
		case UserNamespace:
			add(On, detailed("the agent is in a user namespace", f.Detail),
				"run vmbridge-guest outside of containers that have a user namespace of their own; in Docker Desktop's guest, "+isolationSwitch(goos))
		case EngineUserNamespace:
			add(On, detailed("the engine gives its containers a user namespace", f.Detail),
				"remove userns-remap from the engine's /etc/docker/daemon.json and restart it; in Docker Desktop's guest, "+isolationSwitch(goos))
		case EngineRootless:
			add(On, detailed("the engine runs without root, and its containers share no network of the guest", f.Detail),
				"let the link lead to an engine that runs as root")
		case EngineUnprivileged:
			add(On, detailed("the engine forbids the agent's container, which has privileges", f.Detail),
				"have whoever runs the engine allow it; in Docker Desktop's guest, "+isolationSwitch(goos))
		case ContainerRuntime:
			warnings = append(warnings, where+": "+detailed("one container has sysbox as its runtime, which alone is not Enhanced Container Isolation", f.Detail))
		default:
			add(Unknown, detailed(fmt.Sprintf("the agent reports %q, which this version does not know", f.Kind), f.Detail),
				"use the same version of vmbridge and vmbridge-guest")
		}
	}
	switch {
	case len(g.Incomplete) > 0:
		add(Unknown, "the agent could not look at everything: "+strings.Join(g.Incomplete, "; "), "")
	case g.Known && len(findings) == 0:
		add(Off, "no sysbox, and the agent is in no user namespace", "")
	}
	return findings, warnings
}

func detailed(what, detail string) string {
	if detail == "" {
		return what
	}
	return what + ": " + detail
}

// A Refusal says why host networking cannot be on.
type Refusal struct {
	Findings []Finding // those that say on, at least one
}

// Error gives all findings, in one line.
func (r *Refusal) Error() string {
	lines := make([]string, len(r.Findings))
	for i, f := range r.Findings {
		lines[i] = f.text()
	}
	return "host networking and Enhanced Container Isolation exclude each other, and isolation is on: " + strings.Join(lines, "; also ")
}

// Refusal is nil unless isolation is on. Then it is a *Refusal.
func (v Verdict) Refusal() error {
	if v.State != On {
		return nil
	}
	r := new(Refusal)
	for _, f := range v.Findings {
		if f.State == On {
			r.Findings = append(r.Findings, f)
		}
	}
	return r
}
