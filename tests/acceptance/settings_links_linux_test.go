package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
)

// G1: links come and go with the settings, and touch nobody else's.
func TestG1Links(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true})
	b.spawnServer("7000")
	b.servesBoth("7000")
	flows := b.converse("127.0.0.1:7000")
	second := b.another("second")
	second.spawnServer("7001")
	both := []string{b.linkEntry(), second.linkEntry()}
	for range 3 {
		b.write(b.settingsTextWith(both, ""))
		b.servesBoth("7001")
		flow := b.dial("tcp", "127.0.0.1:7001")
		must(t, hello(flow))

		b.write(b.settingsText(""))
		gone := time.Now()
		b.unreachable("tcp", "127.0.0.1:7001")
		b.released(gone, "7001")
		if err := isOver(flow); err != nil {
			t.Error(err)
		}
		b.awaitLinks(1)
		lasts(t, flows)
	}
	// The same name, and another guest.
	third := b.another("third")
	third.spawnServer("7002")
	b.write(b.settingsTextWith(both, ""))
	b.servesBoth("7001")
	b.write(b.settingsTextWith([]string{b.linkEntry(), fmt.Sprintf("{name: second, url: %q}", third.linkURL())}, ""))
	b.servesBoth("7002")
	b.unreachable("tcp", "127.0.0.1:7001")
	b.released(time.Now(), "7001")
	lasts(t, flows)
	stops(t, flows)
}

// G1: a link that cannot be started says why, keeps nobody else from working, and
// is tried again with the next change.
func TestG1BadLink(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true})
	b.spawnServer("7000")
	b.servesBoth("7000")
	flows := b.converse("127.0.0.1:7000")
	second := b.another("second")
	second.spawnServer("7001")
	key := filepath.Join(b.home, "keys", "second")
	must(t, os.WriteFile(key, []byte("no key\n"), 0o600))
	both := []string{b.linkEntry(), second.linkEntry()}
	b.write(b.settingsTextWith(both, ""))
	if l := b.awaitLinkState("second", control.LinkDown); !strings.Contains(l.Reason, key) {
		t.Errorf("the reason is %q", l.Reason)
	}
	b.exits(0, key, "status")
	lasts(t, flows)
	must(t, os.WriteFile(key, []byte(b.key.String()+"\n"), 0o600))
	b.write(b.settingsTextWith(both, "localhost_twin: true"))
	b.awaitLinkState("second", control.LinkUp)
	b.servesBoth("7001")
	lasts(t, flows)
	stops(t, flows)
}
