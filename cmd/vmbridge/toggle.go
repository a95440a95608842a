package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/hostside/control"
)

// toggleCommand asks the daemon, which keeps the choice; without a daemon it
// edits the settings file itself.
func toggleCommand(name, short string, enabled bool) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := openKeeper(cmd.Context(), true)
			if err == nil {
				err = k.SetEnabled(cmd.Context(), enabled)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			where := ""
			if k.offline {
				where = fmt.Sprintf(" in %s; no daemon is running, the next vmbridge up follows it", k.settings.Path)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "host networking is %s%s\n", onOff(enabled), where)
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
