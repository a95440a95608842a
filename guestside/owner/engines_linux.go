package owner

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxAnswer bounds what is read of an engine's answer or file, in bytes.
const maxAnswer = 4 << 20

// engines knows where container engines keep what they know.
type engines struct {
	configured []string // API sockets
}

// find asks every engine for a container, the likeliest first.
func (e *engines) find(ctx context.Context, id string) (Container, bool) {
	sockets := slices.Clone(e.configured)
	sockets = append(sockets, "/var/run/docker.sock", "/run/podman/podman.sock")
	running, roots := runningEngines()
	sockets = append(sockets, running...)
	if users, err := filepath.Glob("/run/user/*/*/podman.sock"); err == nil {
		sockets = append(sockets, users...)
	}
	if users, err := filepath.Glob("/run/user/*/docker.sock"); err == nil {
		sockets = append(sockets, users...)
	}
	asked := map[string]bool{}
	for _, socket := range sockets {
		if asked[socket] || ctx.Err() != nil {
			continue
		}
		asked[socket] = true
		if c, ok := askAPI(ctx, socket, id); ok {
			return c, true
		}
	}
	for _, root := range append(roots, "/var/lib/docker") {
		if c, ok := dockerFile(root, id); ok {
			return c, true
		}
	}
	if c, ok := bundleFile(id); ok {
		return c, true
	}
	return podmanFile("/var/lib/containers/storage", id)
}

// inspection is what Docker's API and its file config.v2.json have in common.
type inspection struct {
	Name   string
	Config struct{ Image string }
}

func (i inspection) container(id string) (Container, bool) {
	return Container{ID: id, Name: strings.TrimPrefix(i.Name, "/"), Image: i.Config.Image}, i.Name != ""
}

// askAPI asks one engine. Each question has a connection of its own: they are
// rare, and an engine may be restarted in between.
func askAPI(ctx context.Context, socket, id string) (Container, bool) {
	if _, err := os.Stat(socket); err != nil {
		return Container{}, false
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/containers/"+id+"/json", nil)
	if err != nil {
		return Container{}, false
	}
	resp, err := client.Do(req)
	if err != nil {
		return Container{}, false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Container{}, false
	}
	var answer inspection
	if json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&answer) != nil {
		return Container{}, false
	}
	return answer.container(id)
}

// dockerFile reads what Docker wrote about a container, for when its API does
// not answer.
func dockerFile(root, id string) (Container, bool) {
	var file inspection
	if !readJSON(filepath.Join(root, "containers", id, "config.v2.json"), &file) {
		return Container{}, false
	}
	return file.container(id)
}

// bundleFile reads the labels that Kubernetes and containerd's tools leave in the
// configuration of a running container.
func bundleFile(id string) (Container, bool) {
	bundles, err := filepath.Glob("/run/containerd/io.containerd.runtime.v2.task/*/" + id + "/config.json")
	if err != nil || len(bundles) == 0 {
		return Container{}, false
	}
	var file struct{ Annotations map[string]string }
	if !readJSON(bundles[0], &file) {
		return Container{}, false
	}
	a := file.Annotations
	name := a["nerdctl/name"]
	if pod := a["io.kubernetes.cri.sandbox-name"]; name == "" && pod != "" {
		name = strings.TrimSuffix(pod+"/"+a["io.kubernetes.cri.container-name"], "/")
	}
	return Container{ID: id, Name: name, Image: a["io.kubernetes.cri.image-name"]}, name != ""
}

// podmanFile reads Podman's list of containers; its API is often not running.
func podmanFile(root, id string) (Container, bool) {
	var list []struct {
		ID       string
		Names    []string
		Metadata string
	}
	if !readJSON(filepath.Join(root, "overlay-containers", "containers.json"), &list) {
		return Container{}, false
	}
	for _, c := range list {
		if c.ID != id || len(c.Names) == 0 {
			continue
		}
		var meta struct {
			Image string `json:"image-name"`
		}
		// Without metadata the name is still worth having.
		_ = json.Unmarshal([]byte(c.Metadata), &meta)
		return Container{ID: id, Name: c.Names[0], Image: meta.Image}, true
	}
	return Container{}, false
}

func readJSON(name string, v any) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	return json.NewDecoder(io.LimitReader(f, maxAnswer)).Decode(v) == nil
}

// runningEngines finds the API sockets and data directories that Docker engines
// of this machine were started with.
func runningEngines() (sockets, roots []string) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, nil
	}
	defer proc.Close()
	entries, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, nil
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry)
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid); !ok || p.Name != "dockerd" {
			continue
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		s, r := engineFlags(strings.Split(string(cmdline), "\x00"))
		sockets, roots = append(sockets, s...), append(roots, r...)
	}
	return sockets, roots
}

// engineFlags picks -H/--host and --data-root/-g out of dockerd's arguments.
func engineFlags(args []string) (sockets, roots []string) {
	for i, arg := range args {
		flag, value, ok := strings.Cut(arg, "=")
		if !ok && i+1 < len(args) {
			value = args[i+1]
		}
		switch flag {
		case "-H", "--host":
			if path, ok := strings.CutPrefix(value, "unix://"); ok {
				sockets = append(sockets, path)
			}
		case "-g", "--data-root":
			if filepath.IsAbs(value) {
				roots = append(roots, value)
			}
		}
	}
	return sockets, roots
}
