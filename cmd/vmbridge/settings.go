package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/settings"
)

func settingsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "Show and change the settings",
		Long: `Show and change the settings: those of the running daemon, or without one what the
next one would find.

Of several sources the later wins: the defaults, the settings file, the environment
(VMBRIDGE_EXPOSURE for exposure, VMBRIDGE_PORTS_IGNORE for ports.ignore), flags of
vmbridge up, what the administrator's policy locks.`,
		Args: cobra.NoArgs, // which only a command that runs has checked
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(settingsListCommand(), settingsGetCommand(), settingsSetCommand(), settingsUnsetCommand(), settingsPathCommand())
	return cmd
}

func settingsListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List every setting with its value, its default, where it comes from and whether it is locked",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := openKeeper(cmd.Context(), false)
			if err != nil {
				return fmt.Errorf("settings list: %w", err)
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), k.settings)
			}
			for _, p := range k.settings.Problems {
				fmt.Fprintf(cmd.ErrOrStderr(), "vmbridge: settings list: %s\n", program.OneLine(p))
			}
			return writeSettings(cmd.OutOrStdout(), k.settings.Values)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func writeSettings(w io.Writer, values []control.Setting) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tVALUE\tDEFAULT\tORIGIN\tLOCKED")
	for _, v := range values {
		origin, shown, locked := v.Origin, v.Default, ""
		if v.Place != "" {
			origin += " " + v.Place
		}
		if v.Value == v.Default {
			shown = "="
		}
		if v.Locked {
			locked = "locked"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", v.Key, v.Value, shown, origin, locked)
	}
	return t.Flush()
}

func settingsGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "get KEY",
		Short:             "Print the value of a setting",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeSettings,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := openKeeper(cmd.Context(), false)
			if err != nil {
				return fmt.Errorf("settings get: %w", err)
			}
			s, err := k.setting(args[0])
			if err != nil {
				return fmt.Errorf("settings get: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), s.Value)
			return nil
		},
	}
}

func settingsSetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "set KEY VALUE",
		Short: "Change a setting in the settings file; a running daemon follows at once",
		Long: `Change a setting in the settings file; a running daemon follows at once.

Lists are written with commas, or as in the file:
  vmbridge settings set ports.ignore 22/tcp,53
  vmbridge settings set ports.rules '[{port: 8080, host_port: 18080}]'`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeSettings,
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeSetting(cmd, "settings set", args[0], func(k *keeper) error {
				return k.Set(cmd.Context(), args[0], args[1])
			})
		},
	}
}

func settingsUnsetCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "unset KEY",
		Short:             "Take a setting out of the settings file, so that its default applies",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeSettings,
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeSetting(cmd, "settings unset", args[0], func(k *keeper) error {
				return k.Unset(cmd.Context(), args[0])
			})
		},
	}
}

// changeSetting makes a change and shows what came of it.
func changeSetting(cmd *cobra.Command, name, key string, change func(*keeper) error) error {
	k, err := openKeeper(cmd.Context(), true)
	if err == nil {
		_, err = k.setting(key)
	}
	if err == nil {
		err = change(k)
	}
	if err == nil {
		err = k.reread(cmd.Context())
	}
	if errors.Is(err, control.ErrInvalid) {
		err = program.Usage(err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s, err := k.setting(key)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", key, s.Value)
	if s.Origin == string(settings.OriginEnvironment) || s.Origin == string(settings.OriginFlag) {
		fmt.Fprintf(cmd.ErrOrStderr(), "vmbridge: %s: %s outranks %s: what was written there waits until it is gone\n",
			name, s.Place, k.settings.Path)
	}
	return nil
}

func settingsPathCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "path",
		Short: "Print where the settings file is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := control.DefaultHome()
			if err != nil {
				return fmt.Errorf("settings path: %w", err)
			}
			path := settings.Path(home)
			// A file with a mistake in it has a path all the same: only a daemon knows
			// of another.
			switch now, err := control.NewClient(home).Settings(cmd.Context()); {
			case err == nil:
				path = now.Path
			case !errors.Is(err, control.ErrNotRunning):
				return fmt.Errorf("settings path: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), path)
			return nil
		},
	}
}

// completeSettings completes keys, and the values of those that have few.
func completeSettings(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var list []cobra.Completion
	for _, k := range settings.Keys() {
		switch {
		case len(args) == 0:
			list = append(list, cobra.CompletionWithDesc(k.Key, k.Help))
		case len(args) == 1 && cmd.Name() == "set" && k.Key == args[0]:
			list = append(list, k.Values...)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
