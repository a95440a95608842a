package isolation

import (
	"strings"
	"testing"
)

// G2: what guests' agents tell.
func TestGuests(t *testing.T) {
	finding := func(k Kind) []GuestFinding { return []GuestFinding{{k, "detail"}} }
	for _, c := range []struct {
		name     string
		guest    Guest
		want     State
		what     []string // of the findings, each a part
		warnings int
	}{
		{"link down", Guest{}, Unknown, nil, 0},
		{"clean", Guest{Known: true}, Off, []string{"no sysbox"}, 0},
		{"incomplete", Guest{Known: true, Incomplete: []string{"no engine", "no /proc"}}, Unknown, []string{"no engine; no /proc"}, 0},
		{"cannot tell", Guest{Incomplete: []string{"the agent is too old"}}, Unknown, []string{"too old"}, 0},
		{"default runtime", Guest{Known: true, Findings: finding("default_runtime")}, On, []string{"default runtime: detail"}, 0},
		{"process", Guest{Known: true, Findings: finding("sysbox_process")}, On, []string{"running: detail"}, 0},
		{"user namespace", Guest{Known: true, Findings: finding("user_namespace")}, On, []string{"user namespace: detail"}, 0},
		{"engine's user namespaces", Guest{Known: true, Findings: finding("engine_user_namespace")}, On, []string{"gives its containers a user namespace: detail"}, 0},
		{"engine without root", Guest{Known: true, Findings: finding("engine_rootless")}, On, []string{"without root"}, 0},
		{"engine without privileges", Guest{Known: true, Findings: finding("engine_unprivileged")}, On, []string{"forbids the agent's container"}, 0},
		{"one container", Guest{Known: true, Findings: finding("container_runtime")}, Off, []string{"no sysbox"}, 1},
		{"one container, incomplete", Guest{Known: true, Incomplete: []string{"x"}, Findings: finding("container_runtime")}, Unknown, []string{"x"}, 1},
		{"on, incomplete", Guest{Known: true, Incomplete: []string{"x"}, Findings: finding("sysbox_process")}, On, []string{"running", "x"}, 0},
		{"newer agent", Guest{Known: true, Findings: finding("moon_phase")}, Unknown, []string{`"moon_phase"`}, 0},
		{"two", Guest{Known: true, Findings: append(finding("sysbox_process"), finding("user_namespace")...)}, On, []string{"running", "user namespace"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.guest.Link = "vm"
			v := Judge(Setting{}, Host{OS: "linux"}, []Guest{c.guest})
			if v.State != c.want || len(v.Findings) != len(c.what) || len(v.Warnings) != c.warnings {
				t.Fatalf("got %+v", v)
			}
			for i, f := range v.Findings {
				if f.Where != "guest of link vm" || !strings.Contains(f.What, c.what[i]) {
					t.Errorf("finding %v", f)
				}
				if f.State == On && f.Remedy == "" {
					t.Errorf("no remedy: %v", f)
				}
			}
			if (v.Refusal() != nil) != (c.want == On) {
				t.Errorf("refusal %v", v.Refusal())
			}
		})
	}
}

// G2: one finding that says on is enough, one that does not know hides all that
// say off, and the strongest come first.
func TestJudgeJoins(t *testing.T) {
	finding := func(s State) Finding { return Finding{State: s, Where: "w", What: string(s)} }
	off, unknown, on := finding(Off), finding(Unknown), finding(On)
	for _, c := range []struct {
		own  Setting
		host []Finding
		want string
	}{
		{Setting{}, nil, "unknown"},
		{Setting{On: true}, nil, "on, on settings"},
		{Setting{On: false, Place: "settings f:1", LockedBy: "somebody"}, nil, "unknown"},
		{Setting{On: true}, []Finding{off, unknown}, "on, on settings, unknown w, off w"},
		{Setting{}, []Finding{off, off}, "off, off w, off w"},
		{Setting{}, []Finding{off, unknown, off}, "unknown, unknown w, off w, off w"},
		{Setting{}, []Finding{off, unknown, on}, "on, on w, unknown w, off w"},
	} {
		if got := brief(Judge(c.own, Host{Findings: c.host}, nil)); got != c.want {
			t.Errorf("%+v, %v: got %s, want %s", c.own, c.host, got, c.want)
		}
	}
}

// Who locked our own setting is told, and who can change it.
func TestOwnSetting(t *testing.T) {
	v := Judge(Setting{On: true, Place: "settings p.json:3", LockedBy: "the administrator's p.json"}, Host{}, nil)
	want := "on: settings p.json:3: isolation.enhanced_container_isolation is true, locked by the administrator's p.json; to resolve it, have the administrator change it"
	if len(v.Findings) != 1 || v.Findings[0].String() != want {
		t.Errorf("got %q, want %q", v.Findings, want)
	}
}

// Whatever a guest or a file says, it stays one printable line, and the
// evidence it was made from stays as it was.
func TestHostileTexts(t *testing.T) {
	const bad = "a\nb\x1b[31m\u202e\x00\xff"
	host := Host{OS: "windows", Findings: []Finding{{On, bad, bad, bad, bad}}, Warnings: []string{bad}, WSL: WSLConfig{Path: bad, Exists: true}}
	v := Judge(Setting{On: true, Place: bad, LockedBy: bad}, host, []Guest{{
		Link: bad, Kernel: bad + "wsl2", Known: true, Incomplete: []string{bad},
		Findings: []GuestFinding{{DefaultRuntime, bad}, {ContainerRuntime, bad}, {Kind(bad), bad}},
	}})
	texts := append([]string{v.Refusal().Error(), Finding{On, bad, bad, bad, bad}.String()}, v.Warnings...)
	for _, f := range v.Findings {
		texts = append(texts, f.Where, f.What, f.LockedBy, f.Remedy, f.String())
	}
	for _, s := range texts {
		if strings.ContainsAny(s, "\n\r\x1b\x00\u202e") || strings.ToValidUTF8(s, "") != s {
			t.Errorf("%q", s)
		}
	}
	if len(v.Warnings) != 3 || host.Findings[0].What != bad || host.Warnings[0] != bad {
		t.Errorf("warnings %q, host %+v", v.Warnings, host)
	}
}
