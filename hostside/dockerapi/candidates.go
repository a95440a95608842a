package dockerapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/moby/moby/client"
)

// defaultContext is the name of the one that is in no store.
const defaultContext = "default"

// candidate is an engine that may be there.
type candidate struct {
	host   string
	source string
	named  bool // by the user
	// options make its client.
	options func() ([]client.Opt, error)
}

// candidates lists what is to be tried, in order, and what there was nothing to try
// of.
func (env Environment) candidates(contextName string) (list []candidate, passed []string, err error) {
	pass := func(format string, args ...any) { passed = append(passed, clean(fmt.Sprintf(format, args...))) }
	if contextName != "" && contextName != defaultContext {
		c, err := env.context(contextName, "context "+contextName)
		return []candidate{c}, nil, err
	}
	if host := env.Getenv("DOCKER_HOST"); host != "" {
		c, err := env.fromHost(host)
		return []candidate{c}, nil, err
	}
	pass("DOCKER_HOST: not set")
	if contextName == "" {
		name, source := env.Getenv("DOCKER_CONTEXT"), "DOCKER_CONTEXT"
		if name == "" {
			pass("DOCKER_CONTEXT: not set")
			current, err := env.currentContext()
			if err != nil {
				pass("current context: %v", err)
			} else if current == "" {
				pass("current context: none is chosen in %s", env.configFile())
			}
			name, source = current, "current context"
		}
		if name != "" && name != defaultContext {
			c, err := env.context(name, source+" "+name)
			return []candidate{c}, passed, err
		}
	}
	for _, s := range env.sockets() {
		list = append(list, candidate{host: s.host, source: s.source, options: func() ([]client.Opt, error) {
			return []client.Opt{client.WithHost(s.host), client.WithAPIVersionFromEnv()}, nil
		}})
	}
	return list, passed, nil
}

// configDir is where the command docker keeps its configuration.
func (env Environment) configDir() string {
	if dir := env.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	return filepath.Join(env.Home, ".docker")
}

func (env Environment) configFile() string { return filepath.Join(env.configDir(), "config.json") }

// maxConfig bounds what is read of the configuration, in bytes.
const maxConfig = 1 << 20

// currentContext is the one that "docker context use" has chosen, or empty. The
// command's own package for this file would bring its stores of passwords along.
func (env Environment) currentContext() (string, error) {
	f, err := os.Open(env.configFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var file struct {
		CurrentContext string `json:"currentContext"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(&file); err != nil && err != io.EOF {
		return "", fmt.Errorf("%s: %w", f.Name(), err)
	}
	return file.CurrentContext, nil
}

// context reads a context from the command docker's store.
func (env Environment) context(name, source string) (candidate, error) {
	dir := filepath.Join(env.configDir(), "contexts")
	contexts := store.New(dir, store.NewConfig(
		func() any { return &map[string]any{} },
		store.EndpointTypeGetter(docker.DockerEndpoint, func() any { return &docker.EndpointMeta{} }),
	))
	about, err := contexts.GetMetadata(name)
	if err != nil {
		return candidate{}, fmt.Errorf("%s cannot be read from %s: %w (docker context ls lists what there is)", source, dir, err)
	}
	meta, err := docker.EndpointFromContext(about)
	if err != nil {
		return candidate{}, fmt.Errorf("%s: %w", source, err)
	}
	return candidate{host: meta.Host, source: source, named: true, options: func() ([]client.Opt, error) {
		endpoint, err := docker.WithTLSData(contexts, name, meta)
		if err != nil {
			return nil, err
		}
		return endpoint.ClientOpts()
	}}, nil
}

// fromHost is what DOCKER_HOST names, with the variables that belong to it.
func (env Environment) fromHost(host string) (candidate, error) {
	const source = "DOCKER_HOST"
	scheme, _, ok := strings.Cut(host, "://")
	if !ok {
		return candidate{}, fmt.Errorf("%s=%s has no scheme: write unix:///PATH, tcp://HOST:PORT, ssh://USER@HOST or npipe:////./pipe/NAME", source, host)
	}
	return candidate{host: host, source: source, named: true, options: func() ([]client.Opt, error) {
		if scheme == "ssh" {
			endpoint := docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: host}}
			return endpoint.ClientOpts()
		}
		var opts []client.Opt
		if scheme == "tcp" && env.Getenv("DOCKER_CERT_PATH") != "" {
			opts = append(opts, client.WithTLSClientConfigFromEnv())
		} else if scheme == "tcp" && env.Getenv("DOCKER_TLS_VERIFY") != "" {
			file := func(name string) string { return filepath.Join(env.configDir(), name) }
			opts = append(opts, client.WithTLSClientConfig(file("ca.pem"), file("cert.pem"), file("key.pem")))
		}
		return append(opts, client.WithHost(host), client.WithAPIVersionFromEnv()), nil
	}}, nil
}

// socket is where a product has its API.
type socket struct{ host, source string }

// sockets lists where products have their APIs, unless they are told otherwise, the
// first choice first.
func (env Environment) sockets() []socket {
	var list []socket
	add := func(source, path string) {
		list = append(list, socket{"unix://" + path, source})
	}
	home := func(elements ...string) string { return path.Join(append([]string{env.Home}, elements...)...) }
	if env.OS == "windows" {
		for _, p := range []struct{ source, pipe string }{
			{"Docker's pipe", "docker_engine"},
			{"Docker Desktop's pipe", "dockerDesktopLinuxEngine"},
			{"Podman's pipe", "podman-machine-default"},
		} {
			list = append(list, socket{"npipe:////./pipe/" + p.pipe, p.source})
		}
		return list
	}
	add("Docker's socket", "/var/run/docker.sock")
	if env.Home != "" {
		add("Docker Desktop's socket", home(".docker/run/docker.sock"))
		if env.OS == "linux" {
			add("Docker Desktop's socket", home(".docker/desktop/docker.sock"))
		}
		if env.OS == "darwin" {
			add("OrbStack's socket", home(".orbstack/run/docker.sock"))
		}
		add("Rancher Desktop's socket", home(".rd/docker.sock"))
		add("Colima's socket", home(".colima/default/docker.sock"))
		add("Lima's socket", home(".lima/docker/sock/docker.sock"))
		if env.OS == "darwin" {
			add("Podman machine's socket", home(".local/share/containers/podman/machine/podman.sock"))
		}
	}
	if env.OS != "linux" {
		return list
	}
	add("Podman's socket", "/run/podman/podman.sock")
	if env.UID > 0 {
		runtimeDir := env.Getenv("XDG_RUNTIME_DIR")
		if runtimeDir == "" {
			runtimeDir = fmt.Sprintf("/run/user/%d", env.UID)
		}
		add("socket of Docker without root", path.Join(runtimeDir, "docker.sock"))
		add("socket of Podman without root", path.Join(runtimeDir, "podman/podman.sock"))
	}
	return list
}
