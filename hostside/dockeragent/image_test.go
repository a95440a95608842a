package dockeragent

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestArchive: the image's archive holds what its parts say of each other, and is the
// same each time. That engines take it is shown with real ones, in tests/acceptance.
func TestArchive(t *testing.T) {
	i := image{goarch: "arm64", digest: strings.Repeat("0123456789abcdef", 4)}
	agent := strings.Repeat("agent", 1000)
	text := func() []byte {
		t.Helper()
		r, err := i.archive(strings.NewReader(agent), int64(len(agent)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := text()
	if !bytes.Equal(first, text()) {
		t.Error("the same agent makes different images")
	}
	files := untar(t, first)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest %q: %v", files["manifest.json"], err)
	}
	m := manifest[0]
	if fmt.Sprint(m.RepoTags) != "[localhost/vmbridge-agent:0123456789abcdef]" || len(m.Layers) != 1 {
		t.Errorf("manifest %+v", m)
	}
	var config struct {
		Architecture, OS string
		Config           struct{ Labels map[string]string }
		RootFS           struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	text2 := files[m.Config]
	if err := json.Unmarshal(text2, &config); err != nil {
		t.Fatalf("config %q: %v", text2, err)
	}
	layer := files[m.Layers[0]]
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(layer)); config.Architecture != "arm64" || config.OS != "linux" ||
		config.Config.Labels[labelAgent] != i.digest || fmt.Sprint(config.RootFS.DiffIDs) != "["+want+"]" {
		t.Errorf("config %+v, layer %s", config, want)
	}
	if in := untar(t, layer); len(in) != 1 || string(in[program]) != agent {
		t.Errorf("the layer has %d files, and %d bytes of the agent", len(in), len(in[program]))
	}
	// One that is shorter than it should be makes none.
	if _, err := i.archive(strings.NewReader(agent), int64(len(agent))+1); err == nil {
		t.Error("a damaged agent is taken")
	}
}

func untar(t *testing.T, text []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
