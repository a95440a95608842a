package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/control"
)

func portsCommand() *cobra.Command {
	var asJSON, follow, reached bool
	cmd := &cobra.Command{
		Use:   "ports",
		Short: "List what listens in the guests and what became of it here, and what guests use here",
		Long: `List what listens in the guests and what became of it here; then the ports of
this machine's localhost that guests have used. With --reach only the latter.
With --json each of the two is a list of its own.

With --watch: one line for each port that is there, then one line for each that
appears, changes or goes, until interrupted; with --json too, one JSON object
per line.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := newClient()
			if err != nil {
				return fmt.Errorf("ports: %w", err)
			}
			switch {
			case follow && reached:
				err = program.Usage(errors.New("--watch and --reach exclude each other"))
			case follow:
				err = watchPorts(cmd.Context(), cmd.OutOrStdout(), client, asJSON)
			case reached:
				err = listReached(cmd.Context(), cmd.OutOrStdout(), client, asJSON)
			default:
				err = listPorts(cmd.Context(), cmd.OutOrStdout(), client, asJSON)
			}
			if err != nil {
				return fmt.Errorf("ports: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&reached, "reach", false, "list only the ports of this machine's localhost that guests have used")
	cmd.Flags().BoolVar(&follow, "watch", false, "go on and print each change")
	return cmd
}

func listPorts(ctx context.Context, w io.Writer, client *control.Client, asJSON bool) error {
	ports, err := client.Ports(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(w, ports)
	}
	if len(ports) == 0 {
		// Why nothing is open is the next question: answer it.
		status, err := client.Status(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(w, nothingOpen(status))
	} else if err := writePorts(w, ports); err != nil {
		return err
	}
	reached, err := client.Reached(ctx)
	if err != nil || len(reached) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return writeReached(w, reached)
}

func nothingOpen(s control.Status) string {
	if s.HostNetworking != control.On {
		return "no ports: host networking is " + toggleText(s)
	}
	for _, l := range s.Links {
		if l.State != control.LinkUp {
			return fmt.Sprintf("no ports: link %s is %s", l.Name, because(l.State, l.Reason))
		}
	}
	return "no ports: nothing listens in the guest"
}

// writePorts prints the table. A port whose host addresses differ in state has
// one row for each state.
func writePorts(w io.Writer, ports []control.Port) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	links := severalLinks(ports)
	header := "PROTO\tGUEST\tHOST\tSTATE\tOWNER/REASON\n"
	if links {
		header = "LINK\t" + header
	}
	io.WriteString(t, header)
	for _, p := range ports {
		for i, group := range hostGroups(p) {
			head := p.Protocol + "\t" + guestText(p.Guest)
			if i > 0 {
				head = "\t"
			}
			if links {
				link := p.Link
				if i > 0 {
					link = ""
				}
				head = link + "\t" + head
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", head, group.addresses, group.state, details(group.reason, p.Owner))
		}
	}
	return t.Flush()
}

func severalLinks(ports []control.Port) bool {
	for _, p := range ports {
		if p.Link != ports[0].Link {
			return true
		}
	}
	return false
}

// watchPorts prints a line per event until ctx ends, which is no error.
func watchPorts(ctx context.Context, w io.Writer, client *control.Client, asJSON bool) error {
	lines := json.NewEncoder(w)
	err := client.Watch(ctx, func(e control.Event) error {
		if asJSON {
			return lines.Encode(e)
		}
		_, err := io.WriteString(w, eventLine(e, time.Now()))
		return err
	})
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the daemon has stopped: %w any more: start one with: vmbridge up", control.ErrNotRunning)
	}
	return err
}

func eventLine(e control.Event, now time.Time) string {
	at := now.Format("15:04:05.000")
	if e.Type == control.Ready {
		return at + "  watching; interrupt to end\n"
	}
	line := fmt.Sprintf("%s  %-6s  %s %s", at, e.Type, e.Port.Protocol, guestText(e.Port.Guest))
	for i, group := range hostGroups(e.Port) {
		if e.Type == control.Gone {
			break // where it was open, it is no more
		}
		if i > 0 {
			line += ";"
		}
		if group.addresses != "" {
			line += "  -> " + group.addresses
		}
		line += "  " + because(group.state, group.reason)
	}
	return strings.TrimRight(line+"  "+ownerText(e.Port.Owner), " ") + "\n"
}
