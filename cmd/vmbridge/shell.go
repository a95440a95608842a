package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/hostside/sandbox"
)

func shellCommand() *cobra.Command {
	var link string
	cmd := &cobra.Command{
		Use:   "shell [COMMAND...]",
		Short: "Run a command, by default a shell, inside the sandbox guest",
		Long: `Run a command, by default $SHELL, inside the sandbox guest: in its network
namespace, with everything else as it is here. The exit status is the command's.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := newClient()
			if err != nil {
				return fmt.Errorf("shell: %w", err)
			}
			where, err := client.Sandbox(cmd.Context(), link)
			if err != nil {
				return fmt.Errorf("shell: %w", err)
			}
			env := os.Environ()
			if len(args) == 0 {
				args = []string{defaultShell()}
				fmt.Fprintf(cmd.ErrOrStderr(), "This shell is in the network of the sandbox guest %q; exit leaves it.\n", where.Link)
				env = append(env, promptHints(where.Link)...)
			}
			// Returns only when it failed: the command takes this process over.
			return fmt.Errorf("shell: %w", sandbox.Exec(where.NetNS, args, env))
		},
	}
	cmd.Flags().StringVar(&link, "link", "", "the sandbox of this link (default: the only one)")
	// What follows the command's name is the command's own.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func defaultShell() string {
	if shell := os.Getenv("SHELL"); shell != "" {
		return shell
	}
	return "/bin/sh"
}

// promptHints mark the prompt. PS1 serves shells without a start-up file; the
// start-up files of Debian's and Ubuntu's bash put $debian_chroot in front.
func promptHints(link string) []string {
	return []string{
		"PS1=(vmbridge " + link + ") $ ",
		"debian_chroot=vmbridge " + link,
	}
}
