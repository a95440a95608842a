package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/daemon"
	"github.com/vmbridge/vmbridge/hostside/discover"
	"github.com/vmbridge/vmbridge/hostside/vhostdevice"
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
  sandbox:                  a throw-away guest on this Linux machine, no VM (the default there)
  docker://                 the VM that Docker or Podman runs in, found as the command
                            docker does (the default on macOS and Windows); docker://CONTEXT
                            names one of its contexts
  vsock://CID:PORT          a VM's vsock
  unix:///PATH              a unix socket that leads into the VM, as vfkit and krunkit have it
  hybrid:///PATH?port=N     the vsock of Firecracker and cloud-hypervisor
  vhost-user:///PATH?cid=N  a vsock for a plain QEMU, see vmbridge device
  hyperv://VMID:PORT        the vsock of a VM under Hyper-V, on Windows
  lima://NAME               a VM of Lima; without a name the default one, as with the next:
  colima://PROFILE          a VM of Colima
  podman-machine://NAME     a VM of Podman
  wsl://DISTRO              a distribution of WSL 2
  exec:COMMAND ARGS         a command whose standard input and output are the agent's
  tcp://HOST:PORT           TCP, which is not encrypted`,
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

// plan is what the flags come to.
type plan struct {
	home    string
	sources settings.Sources
	keyFile string
	logger  *logrus.Logger
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
	path, err := settingsPath(p.home, flags.settings)
	if err != nil {
		return plan{}, err
	}
	p.sources = sources(path)
	if p.sources.Flags, err = flags.settingsFlags(); err != nil {
		return plan{}, err
	}
	if flags.key != "" {
		if p.keyFile, err = filepath.Abs(flags.key); err != nil {
			return plan{}, fmt.Errorf("--key: %w", err)
		}
	}
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

// settingsFlags are the flags that stand for settings.
func (flags upFlags) settingsFlags() ([]settings.Flag, error) {
	var given []settings.Flag
	if flags.enable {
		given = append(given, settings.Flag{Name: "--enable", Key: enabledKey, Value: "true"})
	}
	var links []settings.Link
	for _, f := range flags.links {
		l, err := settings.ParseLink(f)
		if err != nil {
			return nil, program.Usage(fmt.Errorf("--link: %w", err))
		}
		if err := checkURL(l.URL); err != nil {
			return nil, program.Usage(fmt.Errorf("--link %s: %w", l.Name, err))
		}
		if slices.ContainsFunc(links, func(other settings.Link) bool { return other.Name == l.Name }) {
			return nil, program.Usage(fmt.Errorf("--link: the name %q appears twice", l.Name))
		}
		links = append(links, l)
		// As a list in JSON, which YAML contains: a URL may hold commas.
		value, err := json.Marshal([]map[string]string{{"name": l.Name, "url": l.URL}})
		if err != nil {
			return nil, fmt.Errorf("--link: %w", err)
		}
		given = append(given, settings.Flag{Name: "--link", Key: linksKey, Value: string(value)})
	}
	return given, nil
}

func noLink(path string) error {
	return program.Usage(errors.New("no link: name a guest with --link NAME=URL or in " + path))
}

// checkURL finds what is wrong with a link's URL before anything is started.
func checkURL(url string) error {
	endpoint, err := transport.Parse(url)
	if err != nil {
		return err
	}
	if _, ok := endpoint.Way(); ok {
		return nil
	}
	switch endpoint.Scheme() {
	case transport.Sandbox, transport.VhostUser, transport.Docker: // the daemon makes their other end
		return nil
	}
	return endpoint.CanDial()
}

// writeBanner says what runs and what to type next. Found is what was looked at
// where no link is configured.
func writeBanner(w io.Writer, s daemon.Settings, found []discover.Candidate) {
	if len(found) > 0 && len(s.Links) > 0 {
		writeChoice(w, found, s.Links[0].URL)
	}
	for _, l := range s.Links {
		fmt.Fprintf(w, "Link %s: %s\n", l.Name, l.URL)
		endpoint, err := transport.Parse(l.URL)
		if err != nil {
			continue
		}
		if endpoint.Warning() != "" {
			fmt.Fprintf(w, "Warning: %s\n", endpoint.Warning())
		}
		if endpoint.Scheme() == transport.VhostUser {
			fmt.Fprintf(w, "Start QEMU with:   %s\n(SIZE is the memory's, as with -m)\n", vhostdevice.QEMUFlags(endpoint.Path()))
		}
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(w, "Warning: %s\n", warning)
	}
	self := os.Args[0]
	switch {
	case s.HostNetworking == control.Off && s.Reason == "":
		fmt.Fprintf(w, "Host networking is off. Turn it on with:   %s enable\n", self)
	case s.HostNetworking != control.On:
		fmt.Fprintf(w, "Host networking is %s: %s\n", s.HostNetworking, s.Reason)
	}
	if len(s.Links) == 0 || s.Links[0].URL != sandboxURL {
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
