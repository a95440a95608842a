package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/vmbridge/vmbridge/hostside/control"
)

// listReached lists the ports of this machine's localhost that guests have used.
func listReached(ctx context.Context, w io.Writer, client *control.Client, asJSON bool) error {
	reached, err := client.Reached(ctx)
	switch {
	case err != nil:
		return err
	case asJSON:
		return writeJSON(w, reached)
	case len(reached) == 0:
		_, err := fmt.Fprintln(w, "no guest has used localhost of this machine")
		return err
	}
	return writeReached(w, reached)
}

// writeReached prints the table. Bytes are as the guests see them.
func writeReached(w io.Writer, reached []control.ReachedPort) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "LINK\tFROM GUEST TO\tSTATE\tFLOWS\tSENT\tRECEIVED\tREASON\n")
	for _, r := range reached {
		fmt.Fprintf(t, "%s\t%s localhost:%d\t%s\t%d\t%d\t%d\t%s\n",
			r.Link, r.Protocol, r.Port, r.State, r.Flows, r.BytesIn, r.BytesOut, r.Reason)
	}
	return t.Flush()
}
