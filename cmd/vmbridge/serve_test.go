package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vmbridge/vmbridge/settings"
)

// FuzzPolicy: whatever settings are accepted, the engine accepts the policy that
// they come to. One that it refused would keep out every later one, and an
// administrator's with it.
func FuzzPolicy(f *testing.F) {
	for _, text := range []string{
		"exposure: loopback\nports: {allow: [8000-8999/tcp], deny: [22], ignore: [], ignore_processes: ['a-[b]*']}\n",
		"ports: {rules: [{port: 65530-65535, host_port: 1-6, host_address: 127.0.0.2}]}\n",
		"ports: {rules: [{port: 9, host_address: 224.0.0.1}]}\n",
		"ports: {rules: [{port: 9, host_address: 'fe80::1%lo'}, {guest_address: '::ffff:1.2.3.4', action: ignore}]}\n",
		"ports: {rules: [{container: '[', action: forward}, {image: 'a\\', action: ignore}, {process: '*', protocol: udp, action: forward}]}\n",
		"host_reach: {allow: all, deny: [1-65535]}\nlinks: [{name: a, url: 'sandbox:'}]\n",
	} {
		f.Add(text)
	}
	path := filepath.Join(f.TempDir(), settings.FileName)
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		from := sources(path)
		from.Policy, from.Environ = "", nil
		s, err := settings.Open(from)
		if err != nil {
			return
		}
		if err := daemonSettings(s.Effective(), "", defaultLink("linux")).Policy.Validate(); err != nil {
			t.Errorf("%q is accepted, and then: %v", text, err)
		}
	})
}

// TestDefaultLinks: what runs where nothing is configured can be linked to.
func TestDefaultLinks(t *testing.T) {
	for goos, want := range map[string]string{"linux": sandboxURL, "darwin": dockerURL, "windows": dockerURL} {
		l := defaultLink(goos)
		if l.Name != "default" || l.URL != want || checkURL(l.URL) != nil {
			t.Errorf("%s: %+v", goos, l)
		}
		if links := linksOf(nil, l); len(links) != 1 || links[0] != l {
			t.Errorf("%s: %+v", goos, links)
		}
	}
	if links := linksOf(nil, defaultLink("plan9")); len(links) != 0 {
		t.Errorf("a system without a default: %+v", links)
	}
	configured := []settings.Link{{Name: "vm", URL: "vsock://3:732"}}
	if links := linksOf(configured, defaultLink("darwin")); len(links) != 1 || links[0] != configured[0] {
		t.Errorf("with a link configured: %+v", links)
	}
}
