//go:build linux

package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	hostBinary  = "vmbridge"
	guestBinary = "vmbridge-guest"
)

// vmbridgeMissing says why vmbridge cannot run, or "".
func vmbridgeMissing(binaries string) string {
	for _, name := range []string{hostBinary, guestBinary} {
		if why := executable(filepath.Join(binaries, name)); why != "" {
			return "not built (make build): " + why
		}
	}
	return ""
}

// startVMBridge starts daemon and agent, linked over a unix socket, with
// settings, key and control socket in the bed's directory.
func startVMBridge(b *bed, binaries string) error {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	keyFile := filepath.Join(b.dir, "link.key")
	if err := os.WriteFile(keyFile, []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(vmbridgeHome(b), 0o700); err != nil {
		return err
	}
	url := "unix://" + filepath.Join(b.dir, "link.sock")

	agent := exec.Command(filepath.Join(binaries, guestBinary), "serve", "--listen", url, "--key", keyFile)
	daemon := exec.Command(filepath.Join(binaries, hostBinary), "up", "--link", "bench="+url, "--key", keyFile, "--enable")
	daemon.Env = vmbridgeEnv(b)

	return errors.Join(b.startPart(roleGuest, guestBinary, agent), b.startPart(roleHost, hostBinary, daemon))
}

func vmbridgeHome(b *bed) string { return filepath.Join(b.dir, "home") }

func vmbridgeEnv(b *bed) []string {
	return append(os.Environ(), "VMBRIDGE_HOME="+vmbridgeHome(b))
}

// describeVMBridge says how the agent finds listeners, which decides how fast
// ports appear.
func describeVMBridge(b *bed, binaries string) (string, error) {
	cmd := exec.Command(filepath.Join(binaries, hostBinary), "status", "--json")
	cmd.Env = vmbridgeEnv(b)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("status: %w", err)
	}
	var status struct {
		Version string
		Links   []struct {
			Detection struct{ State, Reason string }
		}
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return "", fmt.Errorf("status: %w", err)
	}
	if len(status.Links) != 1 {
		return "", fmt.Errorf("status: %d links instead of one", len(status.Links))
	}
	d := status.Links[0].Detection
	text := fmt.Sprintf("version %s, detection %s", status.Version, d.State)
	if d.Reason != "" {
		text += " (" + d.Reason + ")"
	}
	return text, nil
}
