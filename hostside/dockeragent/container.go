package dockeragent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// containerName is that of an engine's one agent.
const containerName = "vmbridge-agent"

// Labels of the container: whose it is. The engine's own list shows them.
const (
	labelVersion = "io.vmbridge.version"
	labelHome    = "io.vmbridge.home" // HOST:DIRECTORY
	labelLink    = "io.vmbridge.link"
)

const (
	// stepTimeout bounds a request that is quick unless the engine is busy.
	stepTimeout = 30 * time.Second
	// removeTimeout bounds waiting for a container that is on its way out.
	removeTimeout = 10 * time.Second
	removePoll    = 50 * time.Millisecond
	// abandonedAfter is how long a container may take from being made to being
	// started, which takes its daemon less than a second.
	abandonedAfter = time.Minute
)

// ErrOther is wrapped by the error of Dial where the engine has another daemon's agent.
var ErrOther = errors.New("this engine has the agent of another vmbridge")

// spec is the container of a link.
type spec struct {
	image      image
	version    string
	home, link string
	notIn      string // a network namespace, or empty
	agentFlags []string
}

func (s spec) options() client.ContainerCreateOptions {
	args := append([]string{"serve", "--stdio", "--leave-container"}, s.agentFlags...)
	if s.notIn != "" {
		args = append(args, "--not-in", s.notIn)
	}
	return client.ContainerCreateOptions{
		Name: containerName,
		Config: &container.Config{
			Image:       s.image.ref(),
			Entrypoint:  []string{"/" + program},
			Cmd:         args,
			AttachStdin: true, AttachStdout: true, AttachStderr: true,
			OpenStdin: true, StdinOnce: true,
			Labels: map[string]string{
				labelAgent: s.image.digest, labelVersion: s.version, labelHome: s.home, labelLink: s.link,
			},
		},
		HostConfig: &container.HostConfig{
			Privileged:   true,
			NetworkMode:  "host",
			PidMode:      "host",
			CgroupnsMode: container.CgroupnsModeHost,
			LogConfig:    container.LogConfig{Type: "none"},
			AutoRemove:   true,
		},
	}
}

// create makes the container. One that is in the way is removed where it is this
// link's own, or nobody's any more.
func create(ctx context.Context, cli *client.Client, s spec) (id string, err error) {
	deadline := time.NewTimer(removeTimeout)
	defer deadline.Stop()
	for {
		made, err := cli.ContainerCreate(ctx, s.options())
		if err == nil {
			return made.ID, nil
		}
		// Podman has a status of its own for names that are taken.
		if !cerrdefs.IsConflict(err) && !strings.Contains(err.Error(), containerName) {
			return "", err
		}
		if inWay, err := s.clear(ctx, cli, err); err != nil {
			return "", err
		} else if !inWay {
			continue
		}
		select {
		case <-time.After(removePoll):
		case <-deadline.C:
			return "", fmt.Errorf("the container %s of before does not go away within %s: %w", containerName, removeTimeout, err)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// clear removes the container that has the name, if it may. It tells whether it still is
// in the way.
func (s spec) clear(ctx context.Context, cli *client.Client, conflict error) (inWay bool, err error) {
	found, err := cli.ContainerInspect(ctx, containerName, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return true, nil // it is going, or the conflict is not what it seems
	}
	if err != nil {
		return false, errors.Join(conflict, err)
	}
	if err := s.mayRemove(found.Container); err != nil {
		return false, err
	}
	return true, remove(ctx, cli, found.Container.ID)
}

// mayRemove says whose the container is, if it is not to be removed.
func (s spec) mayRemove(c container.InspectResponse) error {
	var labels map[string]string
	if c.Config != nil {
		labels = c.Config.Labels
	}
	home, link := clean(labels[labelHome]), clean(labels[labelLink])
	if labels[labelAgent] == "" {
		return fmt.Errorf("a container is in the way that has the agent's name and is not vmbridge's: rename it with docker rename %s NAME", containerName)
	}
	if labels[labelHome] == s.home && labels[labelLink] == s.link {
		return nil
	}
	made, err := time.Parse(time.RFC3339Nano, c.Created)
	started := c.State == nil || c.State.Status != container.StateCreated
	if err == nil && !started && time.Since(made) > abandonedAfter {
		return nil
	}
	if labels[labelHome] == s.home {
		return fmt.Errorf("%w: link %s leads to it, too; remove one of the two", ErrOther, link)
	}
	return fmt.Errorf("%w: home %s, link %s; stop that one, since each engine takes one", ErrOther, home, link)
}

// remove removes a container, running or not.
func remove(ctx context.Context, cli *client.Client, id string) error {
	_, err := cli.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) { // or it is being removed
		return nil
	}
	return err
}
