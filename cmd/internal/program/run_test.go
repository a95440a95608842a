package program

import (
	"bytes"
	"errors"
	"testing"

	"github.com/spf13/cobra"
)

var errOther = errors.New("of a special kind")

func TestRun(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		err    error
		status int
		stderr string
	}{
		"done":     {[]string{"do"}, nil, ExitDone, ""},
		"failed":   {[]string{"do"}, errors.New("do: it: broke"), ExitFailed, "prog: do: it: broke\n"},
		"joined":   {[]string{"do"}, errors.Join(errors.New("one"), errors.New("two\r\nlines")), ExitFailed, "prog: one; two; lines\n"},
		"terminal": {[]string{"do"}, errors.New("\x1b[2J\tgone\u202e"), ExitFailed, "prog: \ufffd[2J gone\ufffd\n"},
		"special":  {[]string{"do"}, errOther, ExitRefused, "prog: of a special kind\n"},
		"usage":    {[]string{"do"}, Usage(errors.New("bad value")), ExitUsage, "prog: bad value: see prog do --help\n"},
		"argument": {[]string{"do", "x"}, nil, ExitUsage, "prog: unknown command \"x\" for \"prog do\": see prog do --help\n"},
		"flag":     {[]string{"do", "-x"}, nil, ExitUsage, "prog: unknown shorthand flag: 'x' in -x: see prog do --help\n"},
		"command":  {[]string{"don't"}, nil, ExitUsage, "prog: unknown command \"don't\" for \"prog\": see prog --help\n"},
	} {
		t.Run(name, func(t *testing.T) {
			root := &cobra.Command{Use: "prog"}
			root.AddCommand(&cobra.Command{Use: "do", Args: cobra.NoArgs,
				RunE: func(*cobra.Command, []string) error { return test.err }})
			root.SetArgs(test.args)
			var stderr bytes.Buffer
			status := Run(root, &stderr, func(err error) int {
				if errors.Is(err, errOther) {
					return ExitRefused
				}
				return 0
			})
			if status != test.status || stderr.String() != test.stderr {
				t.Errorf("got %d, %q, want %d, %q", status, stderr.String(), test.status, test.stderr)
			}
		})
	}
}
