//go:build !linux

package main

import (
	"fmt"
	"os"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
)

func main() {
	fmt.Fprintln(os.Stderr, "vmbridge-guest: the agent runs in a Linux guest, not here: copy the Linux build into the VM")
	os.Exit(program.ExitUsage)
}
