package agentbin

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

//go:embed agents
var carried embed.FS

// ErrNone says that this build carries no agents.
var ErrNone = errors.New("this build carries no agents: make build makes them")

// ErrArchitecture says that it carries none for that architecture.
var ErrArchitecture = errors.New("no agent for this architecture")

// architectures are those that agents are built for.
var architectures = []string{"amd64", "arm64"}

// Open opens the agent for Linux on goarch and tells its size in bytes. The
// reader fails at the end when the agent is damaged.
func Open(goarch string) (agent io.ReadCloser, size int64, err error) {
	return open(carried, goarch)
}

// Carried tells whether there are any agents.
func Carried() bool { return !none(carried) }

// Digest names the agent for Linux on goarch: two that differ have different
// digests. It is made of what is carried, which is less to read than the agent.
func Digest(goarch string) (string, error) {
	packed, err := read(carried, goarch)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(packed)), nil
}

// read gives the compressed agent.
func read(from fs.FS, goarch string) ([]byte, error) {
	packed, err := fs.ReadFile(from, name(goarch))
	if errors.Is(err, fs.ErrNotExist) {
		if none(from) {
			return nil, ErrNone
		}
		return nil, fmt.Errorf("%w: %s; there are %v", ErrArchitecture, goarch, architectures)
	}
	return packed, err
}

func open(from fs.FS, goarch string) (io.ReadCloser, int64, error) {
	packed, err := read(from, goarch)
	if err != nil {
		return nil, 0, err
	}
	if len(packed) < 4 {
		return nil, 0, fmt.Errorf("agent for %s: %w", goarch, io.ErrUnexpectedEOF)
	}
	f, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, 0, fmt.Errorf("agent for %s: %w", goarch, err)
	}
	// RFC 1952: the last four bytes are the size, which is below 4 GiB here.
	return f, int64(binary.LittleEndian.Uint32(packed[len(packed)-4:])), nil
}

func name(goarch string) string { return "agents/vmbridge-guest-" + goarch + ".gz" }

func none(from fs.FS) bool {
	for _, goarch := range architectures {
		if _, err := fs.Stat(from, name(goarch)); err == nil {
			return false
		}
	}
	return true
}
