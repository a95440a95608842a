package discover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/hostside/dockerapi"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Candidate is a way into a virtual machine.
type Candidate struct {
	URL  string // of the link
	What string // for people, such as "Lima's instance default"
	// Reason says why the way cannot be taken, and is empty where it can.
	Reason string
	// Passed is what was looked at and not taken in order to find it, a line each.
	Passed []string
}

// Find lists the ways into virtual machines that there are on a system, as
// runtime.GOOS names it, the first choice first: those that can be taken as well as
// those that cannot.
func Find(ctx context.Context, goos string) []Candidate {
	first := Candidate{URL: "sandbox:", What: "a throw-away guest on this machine"}
	var asked sync.WaitGroup
	if goos != "linux" {
		asked.Go(func() { first = engine(ctx) })
	}
	machines := machines(ctx)
	asked.Wait()
	return append([]Candidate{first}, machines...)
}

// engine is the way through a container engine's API.
func engine(ctx context.Context) Candidate {
	w := Candidate{URL: "docker://", What: "the container engine's virtual machine"}
	found, err := dockerapi.Find(ctx, dockerapi.System(), "")
	if err != nil {
		w.Reason = err.Error()
		if not := (*dockerapi.NotFoundError)(nil); errors.As(err, &not) {
			w.Passed = not.Passed
		}
		return w
	}
	_ = found.Client.Close()
	w.What = fmt.Sprintf("%s, %s", found.Source, found.Host)
	w.Passed = found.Passed
	return w
}

// listTime bounds a product's command. wsl.exe may have to start its service.
const listTime = 5 * time.Second

// maxName and maxReason bound what is taken from the products' words, in bytes.
const (
	maxName   = 100
	maxReason = 200
)

// product is a program that runs virtual machines.
type product struct {
	name string
	// list is the command that lists its machines.
	list []string
	env  []string
	// parse reads what that prints.
	parse func(out []byte) ([]machine, error)
	// url gives the URL of a machine's link.
	url  func(name string) string
	what string // a machine, with %s for its name
	hint string // how a stopped one is started, with %s for its name
}

// machine is one of a product's virtual machines.
type machine struct {
	name    string
	running bool
	state   string // in the product's words
	// unfit says why it cannot be a guest at all, or is empty.
	unfit string
}

var products = []product{
	{
		name: "Lima", list: []string{"limactl", "list", "--format", "json"}, parse: parseLima,
		url: func(name string) string { return "lima://" + name }, what: "Lima's instance %s", hint: "limactl start %s",
	},
	{
		name: "Colima", list: []string{"colima", "list", "--json"}, parse: parseColima,
		url: func(name string) string { return "colima://" + name }, what: "Colima's profile %s", hint: "colima start %s",
	},
	{
		name: "Podman", list: []string{"podman", "machine", "list", "--format", "json"}, parse: parsePodman,
		url: func(name string) string { return "podman-machine://" + name }, what: "Podman's machine %s", hint: "podman machine start %s",
	},
	{
		name: "WSL", list: []string{"wsl.exe", "--list", "--verbose"}, env: []string{"WSL_UTF8=1"}, parse: parseWSL,
		url: func(name string) string { return "wsl://" + name }, what: "WSL's distribution %s",
	},
}

// machines lists the ways into the machines of the products that are installed.
func machines(ctx context.Context) []Candidate {
	found := make([][]Candidate, len(products))
	var asked sync.WaitGroup
	for i, p := range products {
		asked.Go(func() { found[i] = p.ways(ctx) })
	}
	asked.Wait()
	return slices.Concat(found...)
}

func (p product) ways(ctx context.Context) []Candidate {
	path, err := exec.LookPath(p.list[0])
	if err != nil {
		return nil
	}
	machines, err := p.machines(ctx, path)
	if err != nil {
		return []Candidate{{What: p.name, Reason: message.Clean(err.Error(), maxReason)}}
	}
	if len(machines) == 0 {
		return []Candidate{{What: p.name, Reason: "it has no virtual machine"}}
	}
	var ways []Candidate
	for _, m := range machines {
		name := message.Clean(m.name, maxName)
		w := Candidate{URL: p.url(name), What: fmt.Sprintf(p.what, name), Reason: m.unfit}
		if w.Reason == "" && !m.running && p.hint != "" { // WSL starts by itself
			w.Reason = fmt.Sprintf("it is %s: "+p.hint, strings.ToLower(message.Clean(m.state, maxName)), name)
		}
		ways = append(ways, w)
	}
	return ways
}

func (p product) machines(ctx context.Context, path string) ([]machine, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, p.list[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.WaitDelay = time.Second
	command := strings.Join(p.list, " ")
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s gives no answer within %s", command, listTime)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("%s: %s: %s", command, exit, lastLine(exit.Stderr))
	}
	if err != nil {
		return nil, err
	}
	machines, err := p.parse(out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return machines, nil
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
