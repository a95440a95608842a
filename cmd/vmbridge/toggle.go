package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/settings"
)

// toggleCommand asks the daemon, which keeps the choice; without a daemon it
// edits the settings file itself.
func toggleCommand(name, short string, enabled bool) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := control.DefaultHome()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			err = control.NewClient(home).SetEnabled(cmd.Context(), enabled)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "host networking is %s\n", onOff(enabled))
				return nil
			}
			if !errors.Is(err, control.ErrNotRunning) {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := control.MakeHome(home); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			path := settings.Path(home)
			if err := settings.SetEnabled(path, enabled); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "host networking is %s in %s; no daemon is running, the next vmbridge up follows it\n",
				onOff(enabled), path)
			return nil
		},
	}
}

func onOff(enabled bool) string {
	if enabled {
		return control.On
	}
	return control.Off
}
