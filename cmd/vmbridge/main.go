package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/control"
)

// version is set by the linker: -X main.version=...
var version string

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "vmbridge",
		Short: "Host networking for Linux VMs: the guest's ports on this machine, port for port",
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(
		upCommand(),
		shellCommand(),
		statusCommand(),
		portsCommand(),
		toggleCommand("enable", "Turn host networking on, and keep it on", true),
		toggleCommand("disable", "Turn host networking off: every forward and flow closes at once", false),
		settingsCommand(),
		guestCommand(),
		deviceCommand(),
		versionCommand(),
	)
	return program.Run(root, stderr, exitStatus)
}

// exitStatus gives an error of a command its own status, or 0.
func exitStatus(err error) int {
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return program.ExitNotRunning
	case errors.Is(err, control.ErrRefused):
		return program.ExitRefused
	}
	return 0
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Tell the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), program.VersionLine("vmbridge", program.Version(version)))
			return nil
		},
	}
}
