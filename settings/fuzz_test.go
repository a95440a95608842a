package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// isOneLine asserts that err is an *Error that can be shown.
func isOneLine(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Err == nil || strings.ContainsAny(err.Error(), "\n\r\x00") {
		t.Fatalf("%#v, %q", err, err)
	}
}

// Whatever the file holds, it is read or refused. What is read can be shown, each
// value in a text that gives the same value, and a change of one key leaves all
// others as they are.
func FuzzFile(f *testing.F) {
	f.Add(commented)
	f.Add("host_networking:\n  enabled: true # on\nlinks:\n- {name: a, url: 'b'}\n")
	f.Add("ports: {ignore: [1-2/tcp], allow: all, ignore_processes: ['[a-z]*', \"null\"]}\n")
	f.Add("host_networking: &h\n  enabled: &e false\nlocalhost_twin: *e\n")
	f.Add("ports: {ignore: &x [80], deny: *x}\n")
	f.Add("a: &a [*a]\n")
	f.Add("links: &x [*x]\n")
	f.Add("ports: &p\n  deny: *p\n")
	f.Add("? [a]\n: b\n")
	f.Add("? &exposure a\n: b\n*exposure : c\n")
	f.Add("<<: {exposure: mirror}\n")
	f.Add("limits: {listeners: 1, flows: 2, udp_idle: 1500ms, memory: 20480KiB}\n")
	f.Add(rulesFile("protocol: tcp, guest_address: '::1', port: 80-81, container: 'a*', host_address: 10.0.0.1, host_port: 90-91", "image: 'b/[c]', action: ignore"))
	f.Add("\xff\xfee\x00x\x00")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parseFile("f", []byte(text))
		if err != nil {
			isOneLine(t, err)
			return
		}
		_, values := merge(policy{}, file)
		for i, v := range values {
			k := table[i]
			n, err := k.value(v.Value)
			if err != nil || flow(n) != v.Value || strings.Contains(v.Value, "\n") {
				t.Fatalf("%s: %q is not read back: %v", k.name, v.Value, err)
			}
		}
		k := table[len(text)%len(table)]
		n, err := k.value(samples[k.name][0])
		if err != nil {
			t.Fatal(err)
		}
		changed, err := (&Store{sources: Sources{Path: "f"}}).change([]byte(text), k, n)
		if err != nil {
			isOneLine(t, err)
			return
		}
		file, err = parseFile("f", changed)
		if err != nil {
			t.Fatalf("%v in\n%s", err, changed)
		}
		_, after := merge(policy{}, file)
		for i, v := range after {
			want := values[i].Value
			if v.Key == k.name {
				want = samples[k.name][0]
			}
			if v.Value != want {
				t.Errorf("%s: %s, want %s, after %s was set in %q", v.Key, v.Value, want, k.name, text)
			}
		}
	})
}

// Whatever the policy holds, it is read or turns host networking off.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"host_networking.enabled": {"locked": true, "value": false}}`))
	f.Add([]byte(`{"host_networking": {"enabled": {"locked": true, "value": true}}, "ports": {"deny": {"value": [22, "80\/tcp"], "locked": false}}}`))
	f.Add([]byte("\xef\xbb\xbf{\r\n\t\"links\": {\"locked\": true, \"value\": [{\"name\": \"a\", \"url\": \"\\u0062\\ud83d\\ude00\"}]}\r\n}"))
	f.Add([]byte(`{"ports.rules": {"locked": true, "value": [{"port": 80, "host_port": 8080}, {"process": "x*", "action": "ignore"}]}}`))
	f.Add([]byte(`{"limits.flows": {"locked": true, "value": 1e3}}`))
	f.Add([]byte(`{"exposure": {"locked": true, "locked": false, "value": null}}`))
	f.Add([]byte(`[[[[[[`))
	f.Add([]byte("{\"\xff\": 1}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePolicy("p", data)
		if err != nil {
			isOneLine(t, err)
			return
		}
		if !json.Valid(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))) {
			t.Fatal("read, and no JSON")
		}
		_, values := merge(p)
		for i, v := range values {
			said := p.locked[v.Key] != nil || p.defaults[v.Key] != nil
			if said != (v.Origin == OriginPolicy) || v.Locked != (p.locked[v.Key] != nil) {
				t.Errorf("%+v", v)
			}
			if n, err := table[i].value(v.Value); err != nil || flow(n) != v.Value {
				t.Errorf("%s: %q is not read back: %v", v.Key, v.Value, err)
			}
		}
	})
}

// Whatever a variable, a flag or set gives, it is refused or shown in a form that
// is taken back.
func FuzzText(f *testing.F) {
	for i, k := range table {
		f.Add(uint(i), samples[k.name][0])
		f.Add(uint(i), samples[k.name][1])
	}
	for i, text := range []string{"22/tcp, 53", "all", "[a", "- a\n- b", "a=b:c, d=e:f", "a=exec:x,y=z", "{}", "*x", "&x 1", "1\n---\n2", "\t", "# 1"} {
		for j := range table {
			f.Add(uint(i+j), text)
		}
	}
	f.Fuzz(func(t *testing.T, index uint, text string) {
		k := table[index%uint(len(table))]
		n, err := k.value(text)
		if err != nil {
			isOneLine(t, err)
			return
		}
		shown := flow(n)
		again, err := k.value(shown)
		if err != nil || flow(again) != shown {
			t.Errorf("%s: %q is shown as %q, which is %v", k.name, text, shown, err)
		}
	})
}

func FuzzParsePortRange(f *testing.F) {
	for _, s := range []string{"1", "65535", "22/tcp", "1-65535/udp", "0", "70000", "9-1", "1-2-3", "-", "/", "+1", "007", "1 ", "٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParsePortRange(s)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
			return
		}
		if r.First == 0 || r.Last < r.First || !r.overlaps(r) {
			t.Errorf("%q gave %+v", s, r)
		}
		if again, err := ParsePortRange(r.String()); err != nil || again != r {
			t.Errorf("%q gave %+v, which is %q, which gave %+v, %v", s, r, r, again, err)
		}
	})
}
