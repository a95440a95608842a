package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/settings"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

func guestCommand() *cobra.Command {
	guest := &cobra.Command{
		Use:   "guest",
		Short: "Prepare a guest",
		Args:  cobra.NoArgs, // which only a command that runs has checked
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	guest.AddCommand(&cobra.Command{
		Use:   "key NAME",
		Short: "Print a link's key, for /etc/vmbridge/link.key in the guest",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := settings.CheckLinkName(args[0]); err != nil {
				return program.Usage(fmt.Errorf("guest key: %w", err))
			}
			home, err := control.DefaultHome()
			if err != nil {
				return fmt.Errorf("guest key: %w", err)
			}
			key, err := control.NewClient(home).Key(cmd.Context(), args[0])
			if errors.Is(err, control.ErrNotRunning) {
				key, err = storedKey(home, args[0])
			}
			if err != nil {
				return fmt.Errorf("guest key: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), key)
			return nil
		},
	})
	return guest
}

// storedKey reads a link's key without a daemon.
func storedKey(home, link string) (string, error) {
	path, err := linkkey.Path(home, link)
	if err != nil {
		return "", err
	}
	key, err := linkkey.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("link %s has no key yet: %s: the first vmbridge up --link %s=URL makes it", link, path, link)
	}
	if err != nil {
		return "", err
	}
	return key.String(), nil
}
