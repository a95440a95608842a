package settings

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// G1: the last good settings stay in force, and a new policy counts all the same.
func TestLastGoodStays(t *testing.T) {
	path := write(t, "exposure: loopback\nlimits: {flows: 5}\n")
	s := open(t, Sources{Path: path})
	rewrite(t, path, "exposure: wide\nlimits: {flows: 6}\n")
	e, changed := s.Reload(true)
	if want := path + `:1: exposure: must be mirror or loopback, not "wide"`; !changed || e.FileError == nil || e.FileError.Error() != want {
		t.Errorf("changed %t, %v; want %s", changed, e.FileError, want)
	}
	if e.Exposure != Loopback || e.Limits.Flows != 5 {
		t.Errorf("in force: %+v", e.Settings)
	}
	if _, changed := s.Reload(true); changed {
		t.Error("the same mistake is a change")
	}
	rewrite(t, path, "\nexposure: wide\n")
	if _, changed := s.Reload(true); !changed {
		t.Error("a mistake elsewhere is no change")
	}
	rewrite(t, path, "exposure: loopback\nlimits: {flows: 6}\n")
	if e, changed := s.Reload(true); !changed || e.FileError != nil || e.Limits.Flows != 6 {
		t.Errorf("mended: changed %t, %v, %+v", changed, e.FileError, e.Limits)
	}
	remove(t, path)
	if e, changed := s.Reload(true); !changed || e.FileError != nil || e.Exposure != Mirror {
		t.Errorf("no file: changed %t, %v, %s", changed, e.FileError, e.Exposure)
	}
}

func TestPolicyCountsWhileTheFileIsBad(t *testing.T) {
	path, policyPath := write(t, "host_networking: {enabled: true}\n"), writePolicy(t, "{}")
	s := open(t, Sources{Path: path, Policy: policyPath})
	if !s.Effective().HostNetworking.Enabled {
		t.Fatal("off at first")
	}
	rewrite(t, path, "[")
	rewrite(t, policyPath, `{"host_networking.enabled": {"locked": true, "value": false}}`)
	if e, changed := s.Reload(true); !changed || e.HostNetworking.Enabled || e.FileError == nil || e.PolicyError != nil {
		t.Errorf("changed %t, on %t, %v, %v", changed, e.HostNetworking.Enabled, e.FileError, e.PolicyError)
	}
	rewrite(t, policyPath, `{`)
	if e, changed := s.Reload(true); !changed || e.HostNetworking.Enabled || e.PolicyError == nil {
		t.Errorf("broken: changed %t, on %t, %v", changed, e.HostNetworking.Enabled, e.PolicyError)
	}
	remove(t, policyPath)
	if e, changed := s.Reload(true); !changed || !e.HostNetworking.Enabled || e.PolicyError != nil {
		t.Errorf("none: changed %t, on %t, %v", changed, e.HostNetworking.Enabled, e.PolicyError)
	}
	if want := []string{path, policyPath}; !slices.Equal(s.Paths(), want) {
		t.Errorf("paths %q, want %q", s.Paths(), want)
	}
}

// Who follows the settings with Reload also learns what the store itself did.
func TestReloadTellsOfOwnChanges(t *testing.T) {
	s := open(t, Sources{Path: write(t, ""), Flags: []Flag{{"--enable", enabledKey, "true"}}})
	if _, changed := s.Reload(true); changed {
		t.Error("a change since Open")
	}
	if err := s.Set("exposure", "loopback"); err != nil {
		t.Fatal(err)
	}
	if e, changed := s.Reload(true); !changed || e.Exposure != Loopback {
		t.Error("Set is no change")
	}
	if _, changed := s.Reload(true); changed {
		t.Error("Set is two changes")
	}
	// disable, after up --enable.
	if err := s.Set(enabledKey, "false"); err != nil {
		t.Fatal(err)
	}
	if !s.Effective().HostNetworking.Enabled {
		t.Error("the file is stronger than the flag")
	}
	s.DropFlag(enabledKey)
	if s.Effective().HostNetworking.Enabled {
		t.Error("the flag still counts")
	}
	if e, changed := s.Reload(true); !changed || e.HostNetworking.Enabled {
		t.Errorf("changed %t, on %t", changed, e.HostNetworking.Enabled)
	}
}

// The methods may be called at once; who reads never waits for who writes, and
// sees whole states only.
func TestStoreAtOnce(t *testing.T) {
	s := open(t, Sources{Path: write(t, ""), Flags: []Flag{{"--enable", enabledKey, "true"}}})
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				e := s.Effective()
				if e.Value("limits.flows").Value != strconv.Itoa(e.Limits.Flows) {
					t.Error("the values are of another state than the settings")
					return
				}
				s.Reload(true)
				s.DropFlag("exposure")
				s.Paths()
			}
		})
	}
	for _, key := range []string{"limits.flows", "limits.listeners", "ports.deny"} {
		writers.Go(func() {
			for i := range 10 {
				if err := s.Set(key, strconv.Itoa(i+1)); err != nil {
					t.Error(err)
				}
				if err := s.Unset("exposure"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if e := s.Effective(); e.Limits.Flows != 10 || e.Limits.Listeners != 10 || e.Ports.Deny[0].First != 10 {
		t.Errorf("in force: %+v, %v", e.Limits, e.Ports.Deny)
	}
}

// What a link's URL must be is for the caller to know; a mistake in one has the
// place that any other has.
func TestCheckLink(t *testing.T) {
	unfit := errors.New("this system has no such thing")
	check := func(url string) error {
		if strings.HasPrefix(url, "bad:") {
			return unfit
		}
		return nil
	}
	const text = "links:\n  - {name: a, url: good:1}\n  - name: b\n    url: bad:2\n"
	path := filepath.Join(t.TempDir(), FileName)
	for name, test := range map[string]struct {
		text    string
		sources Sources
		want    string
	}{
		"file":        {text, Sources{}, path + ":3: links[1].url: " + unfit.Error()},
		"environment": {"", Sources{Environ: []string{"VMBRIDGE_LINKS=a=bad:1"}}, "VMBRIDGE_LINKS: links[0].url: " + unfit.Error()},
		"flag":        {"", Sources{Flags: []Flag{{"--link", "links", "a=bad:1"}}}, "--link: links[0].url: " + unfit.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			test.sources.Path, test.sources.CheckLink = path, check
			if _, err := Open(test.sources); err == nil || err.Error() != test.want || !errors.Is(err, unfit) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	if err := os.WriteFile(path, []byte("links: [{name: a, url: good:1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Sources{Path: path, CheckLink: check})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set("links", "a=bad:1"); err == nil || err.Error() != "links[0].url: "+unfit.Error() {
		t.Errorf("set: %v", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if now, _ := s.Reload(true); len(now.Links) != 1 || now.FileError == nil {
		t.Errorf("after the file went bad: %+v, %v", now.Links, now.FileError)
	}
}

// What a file said that is being rewritten, and so is away or empty for a moment,
// stays in force until the files have settled; what a file says counts at once.
func TestGoneForAMoment(t *testing.T) {
	const off = `{"host_networking.enabled": {"locked": true, "value": false}}`
	path, policyPath := write(t, "host_networking: {enabled: true}\n"), writePolicy(t, off)
	s := open(t, Sources{Path: path, Policy: policyPath})
	expect := func(when string, settled, on, held bool) {
		t.Helper()
		if e, _ := s.Reload(settled); e.HostNetworking.Enabled != on || e.Held != held {
			t.Errorf("%s: on %t, held %t, want %t, %t", when, e.HostNetworking.Enabled, e.Held, on, held)
		}
	}
	remove(t, policyPath)
	expect("the policy is away", false, false, true)
	var locked *LockedError
	if err := s.Set("host_networking.enabled", "true"); !errors.As(err, &locked) {
		t.Errorf("set while the policy is away: %v, want a *LockedError", err)
	}
	rewrite(t, policyPath, "")
	expect("it is empty, which is no policy", false, false, false)
	remove(t, policyPath)
	expect("a bad one is away", false, false, true)
	expect("it stays away", true, true, false)

	rewrite(t, path, "")
	expect("the file is empty", false, true, true)
	rewrite(t, policyPath, off)
	expect("a policy comes while the file is empty", false, false, true)
	remove(t, policyPath)
	remove(t, path)
	expect("both are away", false, false, true)
	rewrite(t, path, "host_networking: {enabled: true}\n")
	expect("the file is back", false, false, true)
	expect("the policy stays away", true, true, false)

	if err := s.Unset("host_networking.enabled"); err != nil {
		t.Fatal(err)
	}
	if e := s.Effective(); e.HostNetworking.Enabled || e.Held {
		t.Errorf("after Unset: on %t, held %t", e.HostNetworking.Enabled, e.Held)
	}
}
