package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

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
	guest.AddCommand(guestInstallCommand(), guestKeyCommand())
	return guest
}

func guestKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key NAME",
		Short: "Print a link's key, for vmbridge-guest install --key-stdin in the guest",
		Long: `Print a link's key, for the guest:
  vmbridge guest key NAME | ssh root@vm vmbridge-guest install --key-stdin
When no daemon runs, a link that has no key yet gets one.`,
		Args: cobra.ExactArgs(1),
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
				var k linkkey.Key
				var made string
				k, made, err = homeKey(home, args[0])
				if made != "" { // a name that was mistyped shows
					fmt.Fprintf(cmd.ErrOrStderr(), "vmbridge: guest key: made the key of link %s: %s\n", args[0], made)
				}
				key = k.String()
			}
			if err != nil {
				return fmt.Errorf("guest key: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), key)
			return nil
		},
	}
}

// linkKey is the key of a link: the one that the daemon uses where it runs and
// has that link, which may be anywhere, else the home's. made is its file where
// there was none.
func linkKey(ctx context.Context, home, link string) (key linkkey.Key, made string, err error) {
	text, err := control.NewClient(home).Key(ctx, link)
	switch {
	case err == nil:
		key, err = linkkey.Parse(text)
		return key, "", err
	case errors.Is(err, control.ErrNotRunning), errors.Is(err, control.ErrNotFound):
		return homeKey(home, link)
	}
	return linkkey.Key{}, "", err
}

// homeKey reads the key that the home has for a link, or makes it.
func homeKey(home, link string) (key linkkey.Key, made string, err error) {
	path, err := linkkey.Path(home, link)
	if err != nil {
		return linkkey.Key{}, "", err
	}
	if err := control.MakeHome(home); err != nil {
		return linkkey.Key{}, "", err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		made = path
	}
	if key, err = linkkey.LoadOrCreate(path); err != nil {
		return linkkey.Key{}, "", err
	}
	return key, made, nil
}
