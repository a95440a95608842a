package isolation

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// seed adds the files of all scenarios with one of the names.
func seed(f *testing.F, names ...string) {
	for _, name := range names {
		paths, err := filepath.Glob(filepath.Join("testdata", "*", name))
		if err != nil || len(paths) == 0 {
			f.Fatalf("no %s: %v", name, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
}

// Whatever a file of Docker Desktop holds: no panic, the same answer twice, and
// on only where true is written for the setting.
func FuzzDesktopFile(f *testing.F) {
	seed(f, "settings-store.json", "settings.json", "admin-settings.json")
	f.Add([]byte(`{"EnhancedContainerIsolation":false,"enhancedContainerIsolation":{"locked":"true","value":"true"}}`))
	f.Add([]byte("\ufeff{\"\\u0065nhancedContainerIsolation\":true}"))
	f.Add(utf16le(`{"EnhancedContainerIsolation":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := parseDocument(data)
		again, errAgain := parseDocument(data)
		if (err == nil) != (errAgain == nil) || !reflect.DeepEqual(doc, again) {
			t.Fatalf("first %v, %v, then %v, %v", doc, err, again, errAgain)
		}
		for _, name := range []string{isolationKey, hostNetworkingKey} {
			got := doc.toggle(name)
			if got != again.toggle(name) {
				t.Fatalf("%s: not the same twice: %+v", name, got)
			}
			says := saysTrue(data, name) || saysTrue(data, strings.ToUpper(name[:1])+name[1:])
			if got.state == On && !says {
				t.Errorf("%s is on: %+v", name, got)
			}
			if err != nil && got.state != Unknown {
				t.Errorf("%s: %+v in spite of %v", name, got, err)
			}
			if got.decided() && !got.set || got.set && got.what == "" {
				t.Errorf("%s: %+v", name, got)
			}
		}
		// Before it is shown, all of it becomes one line.
		h := Host{Findings: []Finding{{Where: "file", What: doc.toggle(isolationKey).what}}}
		if s := Judge(Setting{}, h, nil).Findings[0].String(); strings.ContainsAny(s, "\n\r\x00\x1b") {
			t.Errorf("%q", s)
		}
	})
}

// saysTrue looks for true the long way round.
func saysTrue(data []byte, key string) bool {
	var doc map[string]any
	if json.Unmarshal([]byte(strings.TrimSpace(text(data))), &doc) != nil {
		return false
	}
	value := doc[key]
	if object, ok := value.(map[string]any); ok {
		value = object["value"]
	}
	return value == true || value == "true"
}

// Whatever .wslconfig holds: no panic, the same answer twice, and nothing that
// is not written there.
func FuzzWSLConfig(f *testing.F) {
	seed(f, ".wslconfig")
	f.Add([]byte("[wsl2]\nnetworkingMode=\"mirr\"ored\n"))
	f.Add(utf16le("[experimental]\r\nnetworkingMode=mirrored\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := text(data)
		c := parseWSLConfig(s)
		if c != parseWSLConfig(s) {
			t.Fatalf("not the same twice: %+v", c)
		}
		written := strings.ToLower(strings.ReplaceAll(s, `"`, ""))
		for _, value := range []string{c.NetworkingMode, c.LocalhostForwarding} {
			if !strings.Contains(strings.ToValidUTF8(written, "\ufffd"), strings.ToValidUTF8(value, "\ufffd")) {
				t.Errorf("%q is not written", value)
			}
		}
		v := Judge(Setting{}, Host{OS: "windows", WSL: c}, []Guest{{Link: "vm", Kernel: "wsl2"}})
		if v.State != Unknown || v.Refusal() != nil {
			t.Errorf("verdict %+v", v)
		}
		for _, w := range v.Warnings {
			if strings.ContainsAny(w, "\n\r\x00\x1b") {
				t.Errorf("%q", w)
			}
		}
	})
}
