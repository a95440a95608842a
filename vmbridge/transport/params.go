package transport

import (
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// hybridSuffix is what a vhost-user device adds to its path for the socket of
// its hybrid protocol.
const hybridSuffix = ".hybrid"

// defaultPort is where agents listen unless told otherwise.
const defaultPort = 732

// socketPath takes the path of a unix socket from what follows the scheme. The
// caller may need room for a suffix.
func socketPath(rest, form, suffix string) (path, problem string) {
	path, ok := strings.CutPrefix(rest, "//")
	if runtime.GOOS == "windows" {
		path = strings.TrimPrefix(path, "/") // unix:///C:/...
	}
	switch most := MaxSocketPath() - len(suffix); {
	case !ok || !filepath.IsAbs(path):
		problem = "the path must be absolute; write " + form
	case strings.HasSuffix(path, "/"):
		problem = "the path names a directory; write " + form + " with the name of a socket"
	case len(path) > most && suffix == "":
		problem = fmt.Sprintf("the path has %d bytes, but a socket's path may have at most %d on %s; choose a shorter one",
			len(path), most, runtime.GOOS)
	case len(path) > most:
		problem = fmt.Sprintf("the path has %d bytes, but may have at most %d on %s, as a socket's name with %s is needed, too; choose a shorter one",
			len(path), most, runtime.GOOS, suffix)
	}
	return path, problem
}

// contextName is what the command docker takes as the name of a context.
var contextName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$`)

// dockerContext takes the name of a context, which may be missing, from what
// follows the scheme.
func dockerContext(rest string) (name, problem string) {
	const form = "write docker:// or docker://CONTEXT, as docker context ls lists them"
	name, ok := strings.CutPrefix(rest, "//")
	switch {
	case !ok:
		return "", form
	case name != "" && !contextName.MatchString(name):
		return "", fmt.Sprintf("%q is no name of a context; %s", name, form)
	}
	return name, ""
}

// parseHybrid and parseVhostUser take the last question mark for the beginning of
// the parameters: a path may contain others.
func parseHybrid(rest string) (e Endpoint, problem string) {
	const form = "hybrid:///PATH?port=N"
	rest, params := cutParams(rest)
	if e.path, problem = socketPath(rest, form, ""); problem != "" {
		return e, problem
	}
	found, problem := parseParams(params, form, param{"port", 0, anyPort - 1})
	if problem != "" {
		return e, problem
	}
	port, ok := found["port"]
	if !ok {
		return e, "no port; write " + form
	}
	e.port = port
	return e, ""
}

func parseVhostUser(rest string) (e Endpoint, problem string) {
	const form = "vhost-user:///PATH?cid=N (and &port=N where it is not 732)"
	rest, params := cutParams(rest)
	if e.path, problem = socketPath(rest, form, hybridSuffix); problem != "" {
		return e, problem
	}
	found, problem := parseParams(params, form, param{"cid", firstGuestCID, anyCID - 1}, param{"port", 1, anyPort - 1})
	if problem != "" {
		return e, problem
	}
	cid, ok := found["cid"]
	if !ok {
		return e, "no context ID for the guest; write " + form
	}
	e.cid, e.port = cid, defaultPort
	if port, ok := found["port"]; ok {
		e.port = port
	}
	return e, ""
}

// param is a parameter that a URL may have, with the least and the greatest value.
type param struct {
	name        string
	least, most uint32
}

func cutParams(rest string) (path, params string) {
	i := strings.LastIndexByte(rest, '?')
	if i < 0 {
		return rest, ""
	}
	return rest[:i], rest[i+1:]
}

// parseParams reads NAME=NUMBER&NAME=NUMBER.
func parseParams(s, form string, known ...param) (found map[string]uint32, problem string) {
	found = map[string]uint32{}
	if s == "" {
		return found, ""
	}
next:
	for part := range strings.SplitSeq(s, "&") {
		name, value, _ := strings.Cut(part, "=")
		if _, again := found[name]; again {
			return nil, fmt.Sprintf("the parameter %q appears twice; write %s", name, form)
		}
		for _, p := range known {
			if p.name != name {
				continue
			}
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil || uint32(n) < p.least || uint32(n) > p.most {
				return nil, fmt.Sprintf("the %s %q is not a number from %d to %d; write %s", name, value, p.least, p.most, form)
			}
			found[name] = uint32(n)
			continue next
		}
		return nil, fmt.Sprintf("unknown parameter %q; write %s", name, form)
	}
	return found, ""
}
