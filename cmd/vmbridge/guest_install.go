package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/guestinstall"
	"github.com/vmbridge/vmbridge/settings"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

func guestInstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install LINK",
		Short: "Put agent, key and service into a guest, through a command that leads to a shell there",
		Long: `Put agent, key and service into a guest, through a command that leads to a shell
of root there. LINK is the name of a link that is configured as exec:COMMAND, or
as the VM of a product, or NAME=URL:
  vmbridge guest install vm='exec:ssh root@vm'
  vmbridge guest install vm='exec:ssh me@vm sudo vmbridge-guest serve --stdio'
  vmbridge guest install vm='exec:docker exec -i vm sh'
  vmbridge guest install vm=lima://default
A command that runs the agent runs a shell instead, in the same way. What is
installed already is upgraded.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := guestInstall(cmd.Context(), args[0], cmd.OutOrStdout(), cmd.ErrOrStderr()); err != nil {
				return fmt.Errorf("guest install: %w", err)
			}
			return nil
		},
	}
}

func guestInstall(ctx context.Context, which string, stdout, stderr io.Writer) error {
	home, err := control.DefaultHome()
	if err != nil {
		return err
	}
	l, err := findLink(ctx, home, which)
	if err != nil {
		return err
	}
	if strings.HasPrefix(l.URL, string(transport.Docker)+":") {
		return program.Usage(fmt.Errorf("link %s is %s: its engine starts the agent, and nothing is to be installed", l.Name, l.URL))
	}
	command, preset, ok := shellOf(l.URL)
	if !ok {
		return program.Usage(fmt.Errorf(
			"link %s is %s, which leads to no shell: name a command that does, such as %[1]s='exec:ssh root@vm', or in the guest run vmbridge-guest install",
			l.Name, l.URL))
	}
	key, made, err := linkKey(ctx, home, l.Name)
	if err != nil {
		return err
	}
	if made != "" {
		fmt.Fprintf(stdout, "Made the key of link %s: %s\n", l.Name, made)
	}
	err = guestinstall.Run(ctx, guestinstall.Config{
		Command: command,
		Key:     key,
		Agent:   guestinstall.Agent,
		Out:     func(line string) { fmt.Fprintf(stdout, "%s: %s\n", l.Name, line) },
		Stderr:  func(line string) { fmt.Fprintf(stderr, "%s: %s\n", l.Name, line) },
	})
	if err != nil {
		return fmt.Errorf("link %s: %w", l.Name, err)
	}
	fmt.Fprintf(stdout, `The agent serves on vsock port 732 of the guest. CID stands for the VM's context ID:
  vmbridge up --link %[1]s=vsock://CID:732
  vmbridge up --link '%[1]s=vhost-user:///PATH?cid=CID'    for QEMU without a vsock of its own
`, l.Name)
	if preset {
		fmt.Fprintf(stdout, "Or, without the service: %s starts an agent of its own.\n", l.URL)
	}
	return nil
}

// shellOf is the command that leads to a shell in the guest of a link. preset is set
// where that is a product's.
func shellOf(url string) (command string, preset, ok bool) {
	if command, ok := strings.CutPrefix(url, string(transport.Exec)+":"); ok {
		return guestinstall.ShellCommand(command), false, true
	}
	endpoint, err := transport.Parse(url)
	if err != nil {
		return "", false, false
	}
	way, ok := endpoint.Way()
	return way.Shell, ok, ok
}

// findLink finds a link by its name, or reads NAME=URL.
func findLink(ctx context.Context, home, which string) (settings.Link, error) {
	if strings.Contains(which, "=") {
		l, err := settings.ParseLink(which)
		if err == nil {
			err = checkURL(l.URL)
		}
		if err != nil {
			return settings.Link{}, program.Usage(err)
		}
		return l, nil
	}
	links, err := knownLinks(ctx, home)
	if err != nil {
		return settings.Link{}, err
	}
	for _, l := range links {
		if l.Name == which {
			return l, nil
		}
	}
	return settings.Link{}, program.Usage(fmt.Errorf("no link is called %q: name one that is configured, or NAME=exec:COMMAND", which))
}

// knownLinks are the running daemon's links, or without one those of the settings.
func knownLinks(ctx context.Context, home string) ([]settings.Link, error) {
	status, err := control.NewClient(home).Status(ctx)
	if err == nil {
		var links []settings.Link
		for _, l := range status.Links {
			links = append(links, settings.Link{Name: l.Name, URL: l.URL})
		}
		return links, nil
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return nil, err
	}
	store, err := settings.Open(sources(settings.Path(home)))
	if err != nil {
		return nil, err
	}
	return store.Effective().Links, nil
}
