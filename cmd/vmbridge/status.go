package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/hostside/control"
)

func statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show links, agents and everything that is degraded, with its reason",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := newClient()
			if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), status)
			}
			return writeStatus(cmd.OutOrStdout(), status, time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newClient() (*control.Client, error) {
	home, err := control.DefaultHome()
	if err != nil {
		return nil, err
	}
	return control.NewClient(home), nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func writeStatus(w io.Writer, s control.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(label, value string) { fmt.Fprintf(t, "%s\t%s\n", label, value) }
	row("daemon", fmt.Sprintf("vmbridge %s, pid %d, up %s", s.Version, s.PID, now.Sub(s.Since).Round(time.Second)))
	row("home", s.Home)
	row("host networking", toggleText(s))
	row("isolation", s.Isolation)
	for _, e := range s.Evidence {
		row("  evidence", e)
	}
	for _, w := range s.Warnings {
		row("warning", w)
	}
	row("ports", countsLine(s.Counts))
	for _, l := range s.Links {
		row("", "")
		row("link "+l.Name, l.URL)
		row("  state", because(l.State, l.Reason))
		if l.AgentVersion != "" {
			row("  agent", fmt.Sprintf("vmbridge-guest %s on Linux %s", l.AgentVersion, l.Kernel))
		}
		if l.Detection.State != "" {
			row("  detection", because(l.Detection.State, l.Detection.Reason))
		}
		if l.HostReach.State != "" {
			row("  host reach", because(l.HostReach.State, l.HostReach.Reason))
		}
		for _, c := range l.Carried {
			row("  carried", carriedLine(c))
		}
		if l.DroppedListeners > 0 {
			row("  dropped", fmt.Sprintf("%d listeners beyond the limit are not forwarded", l.DroppedListeners))
		}
	}
	return t.Flush()
}

// toggleText says whether host networking is on, why not, or what to do.
func toggleText(s control.Status) string {
	if s.HostNetworking == control.Off && s.HostNetworkingReason == "" {
		return "off (turn it on: vmbridge enable)"
	}
	return because(s.HostNetworking, s.HostNetworkingReason)
}

func because(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + ": " + reason
}

// carriedLine is like "200 ports by Lima "default"; here when it lets go: SWITCH".
func carriedLine(c control.Carried) string {
	line := fmt.Sprintf("%d ports by %s", c.Ports, c.Product)
	if c.Ports == 1 {
		line = "1 port by " + c.Product
	}
	if c.VM != "" {
		line += fmt.Sprintf(" %q", c.VM)
	}
	if c.Switch == "" {
		return line + ", which has no switch for that"
	}
	return line + "; they open here when it lets go: " + c.Switch
}

// countsLine names the states that there are: "3 listeners: 2 open, 1
// conflict; 4 flows".
func countsLine(c control.Counts) string {
	var parts []string
	for _, n := range []struct {
		count int
		name  string
	}{
		{c.Open, control.PortOpen},
		{c.Conflict, control.PortConflict},
		{c.Carried, control.PortCarried},
		{c.Denied, control.PortDenied},
		{c.Ignored, control.PortIgnored},
		{c.Failed, control.PortFailed},
	} {
		if n.count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n.count, n.name))
		}
	}
	line := fmt.Sprintf("%d listeners", c.Ports)
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	line += fmt.Sprintf("; %d flows", c.Flows)
	if c.ReachFlows > 0 {
		line += fmt.Sprintf(", and %d from guests to localhost here", c.ReachFlows)
	}
	return line
}
