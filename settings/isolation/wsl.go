package isolation

import (
	"fmt"
	"strings"
)

// A WSLConfig is what .wslconfig says about WSL's own forwarding.
type WSLConfig struct {
	Path    string // empty where there is no WSL
	Exists  bool
	Problem string // why it tells nothing, though it exists

	NetworkingMode      string // in lower case, empty when it is not set
	LocalhostForwarding string // in lower case, empty when it is not set
}

func readWSLConfig(path string) WSLConfig {
	if path == "" {
		return WSLConfig{}
	}
	data, err := readFile(path)
	switch {
	case err == nil:
		c := parseWSLConfig(text(data))
		c.Path, c.Exists = path, true
		return c
	case absent(err):
		return WSLConfig{Path: path}
	}
	return WSLConfig{Path: path, Exists: true, Problem: "cannot be read: " + reason(err)}
}

// parseWSLConfig reads as WSL does: names in any case, the first of two equal
// settings counts, and a line that cannot be understood is skipped. So is one
// that starts with a semicolon; after a value only # starts a comment.
func parseWSLConfig(s string) WSLConfig {
	var c WSLConfig
	section := ""
	set := func(field *string, value string) {
		if *field == "" {
			*field = strings.ToLower(value)
		}
	}
	for line := range strings.Lines(strings.ReplaceAll(s, "\r", "\n")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if name, ok := sectionName(line); ok {
			section = name
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		if value, ok = wslValue(value); !ok {
			continue
		}
		switch section + "." + strings.ToLower(strings.TrimSpace(key)) {
		case "wsl2.networkingmode", "experimental.networkingmode": // its section in early versions
			set(&c.NetworkingMode, value)
		case "wsl2.localhostforwarding":
			set(&c.LocalhostForwarding, value)
		}
	}
	return c
}

// sectionName takes a line [name], which a comment may follow.
func sectionName(line string) (string, bool) {
	rest, ok := strings.CutPrefix(line, "[")
	if !ok {
		return "", false
	}
	name, rest, ok := strings.Cut(rest, "]")
	rest = strings.TrimSpace(rest)
	if !ok || (rest != "" && rest[0] != '#') {
		return "", false
	}
	return strings.ToLower(name), true
}

// wslValue takes what is after the equals sign, without quotes and a comment
// outside of them. What remains open is not a value.
func wslValue(s string) (string, bool) {
	var b strings.Builder
	quoted := false
	for _, r := range s {
		if r == '"' {
			quoted = !quoted
			continue
		}
		if r == '#' && !quoted {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String()), !quoted
}

// warning names what WSL forwards by itself, empty when it forwards nothing.
func (c WSLConfig) warning() string {
	const apply = ", then run wsl --shutdown"
	set := func(lines string) string { return fmt.Sprintf("set %s below [wsl2] in %s%s", lines, c.file(), apply) }
	switch {
	case c.Problem != "":
		return fmt.Sprintf("%s %s, and WSL forwards localhost to its distributions unless that file says otherwise: %s",
			c.Path, c.Problem, set("localhostForwarding=false"))
	case c.NetworkingMode == "none":
		return ""
	case c.NetworkingMode == "mirrored":
		return fmt.Sprintf("WSL mirrors the ports of its distributions (networkingMode=mirrored in %s), so two forwarders want each port: %s",
			c.file(), set("networkingMode=nat and localhostForwarding=false"))
	}
	forwarding := "localhostForwarding is true by default"
	switch c.LocalhostForwarding {
	case "false", "0":
		return ""
	case "true", "1":
		forwarding = "localhostForwarding=" + c.LocalhostForwarding + " in " + c.file()
	case "":
	default: // WSL warns, and takes the default
		forwarding = fmt.Sprintf("localhostForwarding=%q in %s is neither true nor false, so it is true", c.LocalhostForwarding, c.file())
	}
	return fmt.Sprintf("WSL forwards localhost to its distributions (%s), so two forwarders want each port: %s",
		forwarding, set("localhostForwarding=false"))
}

func (c WSLConfig) file() string {
	if c.Path == "" {
		return `%USERPROFILE%\.wslconfig`
	}
	return c.Path
}

// isWSL tells whether a kernel is that of WSL 2, by the name that Microsoft gives
// its builds.
func isWSL(kernel string) bool {
	return strings.Contains(strings.ToLower(kernel), "wsl2")
}
