package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/guestside/install"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

var errNotRoot = errors.New("root is needed: run it with sudo or doas")

func installCommand() *cobra.Command {
	var keyStdin bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install this program as a service of this guest, or upgrade it",
		Long: `Install this program as a service of this guest, or upgrade it.

It copies itself to ` + install.Program + `, and makes a service of systemd or
OpenRC that starts with the guest. The link's key stays, unless --key-stdin reads
another one from standard input; on the host:
  vmbridge guest key NAME | ssh root@vm vmbridge-guest install --key-stdin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config := install.Config{Root: "/", Out: cmd.OutOrStdout()}
			err := needRoot()
			if err == nil && keyStdin {
				config.Key, err = readKey(cmd.InOrStdin())
			}
			if err == nil {
				err = install.Install(cmd.Context(), config)
			}
			if err != nil {
				return fmt.Errorf("install: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&keyStdin, "key-stdin", false, "read the link's key from standard input")
	return cmd
}

func uninstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "uninstall",
		Short: "Remove what install has put in place: service, program and key",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := needRoot()
			if err == nil {
				err = install.Uninstall(cmd.Context(), install.Config{Root: "/", Out: cmd.OutOrStdout()})
			}
			if err != nil {
				return fmt.Errorf("uninstall: %w", err)
			}
			return nil
		},
	}
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	return nil
}

// maxKeyText bounds what is read as a key: its digits and much white space.
const maxKeyText = 4096

func readKey(r io.Reader) (*linkkey.Key, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeyText))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	key, err := linkkey.Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return &key, nil
}
