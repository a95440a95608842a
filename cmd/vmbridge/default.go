package main

import (
	"fmt"
	"io"

	"github.com/vmbridge/vmbridge/hostside/discover"
	"github.com/vmbridge/vmbridge/settings"
)

const (
	sandboxURL = "sandbox:"
	dockerURL  = "docker://"
)

// defaultLink is what runs where no link is configured and nobody has looked what
// there is, or nothing can be taken now: on Linux nothing has to be there for it,
// elsewhere an engine may be started at any time, and is waited for.
func defaultLink(goos string) settings.Link {
	l := settings.Link{Name: "default"}
	switch goos {
	case "linux":
		l.URL = sandboxURL
	case "darwin", "windows":
		l.URL = dockerURL
	}
	return l
}

// choose takes the first way that can be taken.
func choose(found []discover.Candidate, goos string) settings.Link {
	l := defaultLink(goos)
	for _, w := range found {
		if w.Reason == "" {
			l.URL = w.URL
			break
		}
	}
	return l
}

// writeChoice says what was found where no link is configured, and what was taken.
func writeChoice(to io.Writer, found []discover.Candidate, taken string) {
	fmt.Fprintln(to, "No link is configured. What was found here, in order of preference:")
	known := false
	for _, w := range found {
		for _, line := range w.Passed {
			fmt.Fprintf(to, "  passed over: %s\n", line)
		}
		name := w.What
		if w.URL != "" {
			name = fmt.Sprintf("%s (%s)", w.URL, w.What)
		}
		switch {
		case w.Reason != "":
			fmt.Fprintf(to, "  passed over: %s: %s\n", name, w.Reason)
		case w.URL == taken && !known:
			fmt.Fprintf(to, "  taken:       %s\n", name)
			known = true
		default:
			fmt.Fprintf(to, "  passed over: %s: one before it was taken; --link vm=%s takes it\n", name, w.URL)
		}
	}
	if !known && taken != "" {
		fmt.Fprintf(to, "  waiting for: %s\n", taken)
	}
}
