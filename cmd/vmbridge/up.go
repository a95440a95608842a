package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/settings"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// upFlags are the flags of vmbridge up.
type upFlags struct {
	links    []string
	settings string
	key      string
	enable   bool
	log      program.LogFlags
}

func upCommand() *cobra.Command {
	var flags upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run the daemon, in the foreground",
		Long: `Run the daemon, in the foreground, until it is interrupted.

Each link is a guest. Its URL says how the agent there is reached:
  sandbox:              a throw-away guest on this Linux machine, no VM (the default)
  vsock://CID:PORT      a VM's vsock
  unix:///PATH          a unix socket that leads into the VM
  exec:COMMAND ARGS     a command whose standard input and output are the agent's
  tcp://HOST:PORT       TCP, which is not encrypted`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := up(cmd.Context(), flags, cmd.OutOrStdout(), cmd.ErrOrStderr()); err != nil {
				return fmt.Errorf("up: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&flags.links, "link", nil, "a guest, as NAME=URL; may be repeated, and takes the place of the settings' links")
	f.StringVar(&flags.settings, "settings", "", "the settings file (default $VMBRIDGE_HOME/settings.yaml)")
	f.StringVar(&flags.key, "key", "", "the file with the links' key (default $VMBRIDGE_HOME/keys/NAME)")
	f.BoolVar(&flags.enable, "enable", false, "turn host networking on for this run only")
	flags.log.Register(f)
	return cmd
}

// plan is what the flags and the settings file come to.
type plan struct {
	home         string
	settingsPath string
	settings     settings.Settings
	links        []settings.Link
	defaulted    bool // links is the built-in default
	keyFile      string
	enabled      bool
	logger       *logrus.Logger
}

func up(ctx context.Context, flags upFlags, stdout, stderr io.Writer) error {
	p, err := makePlan(flags, stderr)
	if err != nil {
		return err
	}
	return serve(ctx, p, stdout)
}

func makePlan(flags upFlags, stderr io.Writer) (plan, error) {
	var p plan
	var err error
	if p.logger, err = flags.log.Logger(stderr); err != nil {
		return plan{}, err
	}
	if p.home, err = control.DefaultHome(); err != nil {
		return plan{}, err
	}
	if p.settingsPath, err = settingsPath(p.home, flags.settings); err != nil {
		return plan{}, err
	}
	if p.settings, err = settings.Load(p.settingsPath); err != nil {
		return plan{}, fmt.Errorf("settings: %w", err)
	}
	if p.links, err = chooseLinks(flags.links, p.settings.Links); err != nil {
		return plan{}, err
	}
	if len(p.links) == 0 {
		if runtime.GOOS != "linux" {
			return plan{}, program.Usage(errors.New("no link: name a guest with --link NAME=URL or in " + p.settingsPath))
		}
		p.links = []settings.Link{{Name: "default", URL: "sandbox:"}}
		p.defaulted = true
	}
	if flags.key != "" {
		if p.keyFile, err = filepath.Abs(flags.key); err != nil {
			return plan{}, fmt.Errorf("--key: %w", err)
		}
	}
	p.enabled = flags.enable || p.settings.HostNetworking.Enabled
	return p, nil
}

// settingsPath takes the home's file, which need not exist, unless another one
// is named, which must: a name that was mistyped is not the defaults.
func settingsPath(home, named string) (string, error) {
	if named == "" {
		return settings.Path(home), nil
	}
	if _, err := os.Stat(named); err != nil {
		return "", fmt.Errorf("--settings: %w", err)
	}
	return filepath.Abs(named)
}

// chooseLinks takes the flags' links, or else the settings'.
func chooseLinks(flags []string, configured []settings.Link) ([]settings.Link, error) {
	if len(flags) == 0 {
		for _, l := range configured {
			if err := checkURL(l.URL); err != nil {
				return nil, fmt.Errorf("settings: link %s: %w", l.Name, err)
			}
		}
		return configured, nil
	}
	var links []settings.Link
	seen := make(map[string]bool)
	for _, f := range flags {
		l, err := settings.ParseLink(f)
		if err != nil {
			return nil, program.Usage(fmt.Errorf("--link: %w", err))
		}
		if err := checkURL(l.URL); err != nil {
			return nil, program.Usage(fmt.Errorf("--link %s: %w", l.Name, err))
		}
		if seen[l.Name] {
			return nil, program.Usage(fmt.Errorf("--link: the name %q appears twice", l.Name))
		}
		seen[l.Name] = true
		links = append(links, l)
	}
	return links, nil
}

// checkURL finds what is wrong with a link's URL before anything is started.
func checkURL(url string) error {
	endpoint, err := transport.Parse(url)
	if err != nil || endpoint.Scheme() == transport.Sandbox {
		return err
	}
	return endpoint.CanDial()
}

// writeBanner says what runs and what to type next.
func writeBanner(w io.Writer, p plan) {
	for _, l := range p.links {
		if p.defaulted {
			fmt.Fprintln(w, "No link is configured: taking the sandbox, a throw-away guest on this machine.")
		} else {
			fmt.Fprintf(w, "Link %s: %s\n", l.Name, l.URL)
			if endpoint, err := transport.Parse(l.URL); err == nil && endpoint.Warning() != "" {
				fmt.Fprintf(w, "Warning: %s\n", endpoint.Warning())
			}
		}
	}
	self := os.Args[0]
	if !p.enabled {
		fmt.Fprintf(w, "Host networking is off. Turn it on with:   %s enable\n", self)
	}
	if p.links[0].URL != "sandbox:" {
		return
	}
	fmt.Fprintf(w, `
Type in a second terminal:   %[1]s shell nc -lkv 0.0.0.0 8000
and in a third:              nc localhost 8000
Reach this machine from it:  %[1]s shell curl localhost:PORT
Watch the ports come and go: %[1]s ports --watch
Interrupt (Ctrl-C) to end.

`, self)
}
