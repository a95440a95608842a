package owner

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vmbridge/vmbridge/guestside/engine"
)

// maxFile bounds what is read of an engine's file, in bytes.
const maxFile = 4 << 20

// engines knows where container engines keep what they know.
type engines struct {
	configured []string // API sockets
}

// find asks every engine for a container, the likeliest first.
func (e *engines) find(ctx context.Context, id string) (Container, bool) {
	running := engine.Daemons()
	sockets := slices.Concat(e.configured, engine.Usual(), running.Sockets, engine.Users())
	asked := map[string]bool{}
	for _, socket := range sockets {
		if asked[socket] || ctx.Err() != nil {
			continue
		}
		asked[socket] = true
		var answer inspection
		if engine.Get(ctx, socket, "/containers/"+id+"/json", &answer) != nil {
			continue // not its container, or no engine that answers
		}
		if c, ok := answer.container(id); ok {
			return c, true
		}
	}
	for _, root := range append(running.Roots, "/var/lib/docker") {
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
	return json.NewDecoder(io.LimitReader(f, maxFile)).Decode(v) == nil
}
