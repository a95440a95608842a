package dockeragent

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/vmbridge/vmbridge/hostside/agentbin"
)

const (
	// repository is where nothing can be pulled from by mistake.
	repository = "localhost/vmbridge-agent"
	// labelAgent is on images and containers, and says which agent is in them.
	labelAgent = "io.vmbridge.agent"
	// program is the one file in the image.
	program = "vmbridge-guest"
	// loadTimeout bounds loading the image: some 12 MB, perhaps over ssh.
	loadTimeout = 5 * time.Minute
	// tagDigits of a digest are enough to tell some versions from each other.
	tagDigits = 16
)

// image is the agent for an architecture, as an engine knows it.
type image struct {
	goarch string
	digest string
}

func (i image) ref() string { return repository + ":" + i.digest[:tagDigits] }

// ensureImage has the engine have the image, and tells whether it had to be loaded.
func ensureImage(ctx context.Context, cli *client.Client, i image) (loaded bool, err error) {
	_, err = cli.ImageInspect(ctx, i.ref())
	if err == nil {
		return false, nil
	}
	if !cerrdefs.IsNotFound(err) {
		return false, fmt.Errorf("look for the image %s: %w", i.ref(), err)
	}
	agent, size, err := agentbin.Open(i.goarch)
	if err != nil {
		return false, err
	}
	defer agent.Close()
	archive, err := i.archive(agent, size)
	if err != nil {
		return false, fmt.Errorf("make the image of the agent: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	if err := load(ctx, cli, archive); err != nil {
		return false, fmt.Errorf("load the image of the agent (%d MB): %w", size>>20, err)
	}
	return true, nil
}

// load hands an archive to the engine. It answers while it works, so what goes
// wrong may come as a status or in the answer.
func load(ctx context.Context, cli *client.Client, archive io.Reader) error {
	answer, err := cli.ImageLoad(ctx, archive)
	if err != nil {
		return err
	}
	defer answer.Close()
	for progress := json.NewDecoder(answer); ; {
		var message struct {
			Error       string `json:"error"`
			ErrorDetail struct {
				Message string `json:"message"`
			} `json:"errorDetail"`
		}
		switch err := progress.Decode(&message); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case message.Error != "":
			return errors.New(message.Error)
		case message.ErrorDetail.Message != "":
			return errors.New(message.ErrorDetail.Message)
		}
	}
}

// archive is what "docker load" and "podman load" read. The same agent makes the same
// image.
func (i image) archive(agent io.Reader, size int64) (io.Reader, error) {
	var layer bytes.Buffer
	layer.Grow(int(size) + 4<<10)
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: program, Mode: 0o755, Size: size}); err != nil {
		return nil, err
	}
	if _, err := io.Copy(w, agent); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": i.goarch, "os": "linux", "created": time.Unix(0, 0).UTC().Format(time.RFC3339),
		"config": map[string]any{"Labels": map[string]string{labelAgent: i.digest}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	if err != nil {
		return nil, err
	}
	configName, layerName := fmt.Sprintf("%x.json", sha256.Sum256(config)), "layer.tar"
	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": []string{i.ref()}, "Layers": []string{layerName},
	}})
	if err != nil {
		return nil, err
	}
	var head, tail bytes.Buffer
	outer := tar.NewWriter(&head)
	for _, file := range []struct {
		name string
		text []byte
	}{{"manifest.json", manifest}, {configName, config}} {
		if err := outer.WriteHeader(&tar.Header{Name: file.name, Mode: 0o644, Size: int64(len(file.text))}); err != nil {
			return nil, err
		}
		if _, err := outer.Write(file.text); err != nil {
			return nil, err
		}
	}
	// The layer is not copied once more. A layer ends on a boundary of blocks, so
	// nothing has to follow it but the end of the archive: two empty blocks.
	if err := outer.WriteHeader(&tar.Header{Name: layerName, Mode: 0o644, Size: int64(layer.Len())}); err != nil {
		return nil, err
	}
	tail.Write(make([]byte, 2*512))
	return io.MultiReader(&head, &layer, &tail), nil
}

// removeOldImages removes the images of other versions. One that a container uses
// stays: it is another daemon's, and the engine refuses.
func removeOldImages(ctx context.Context, cli *client.Client, current image) error {
	list, err := cli.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("label", labelAgent)})
	if err != nil {
		return err
	}
	var errs []error
	for _, old := range list.Items {
		if old.Labels[labelAgent] == current.digest {
			continue
		}
		_, err := cli.ImageRemove(ctx, old.ID, client.ImageRemoveOptions{PruneChildren: true})
		if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
