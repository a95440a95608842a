//go:build unix

package program

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// The test program plays one that takes its time to stop.
func TestMain(m *testing.M) {
	if os.Getenv("PROGRAM_TEST_ROLE") == "" {
		os.Exit(m.Run())
	}
	root := &cobra.Command{Use: "prog", RunE: func(cmd *cobra.Command, _ []string) error {
		fmt.Println("running")
		<-cmd.Context().Done()
		fmt.Println("stopping")
		select {}
	}}
	root.SetArgs(nil)
	os.Exit(Run(root, os.Stderr, func(error) int { return 0 }))
}

// One signal asks the program to stop, a second one ends it.
func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			if signal.Ignored(sig) {
				t.Skip("the tests were started with this signal ignored, as by nohup, and so is the program")
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel() // kills a program that does not end
			cmd := exec.CommandContext(ctx, self)
			cmd.Env = append(os.Environ(), "PROGRAM_TEST_ROLE=slow")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			for _, want := range []string{"running", "stopping"} {
				if line, err := lines.ReadString('\n'); strings.TrimSpace(line) != want {
					t.Errorf("got %q, %v, want %s", line, err, want)
				}
				cmd.Process.Signal(sig)
			}
			cmd.Wait()
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != sig {
				t.Errorf("ended with %v", cmd.ProcessState)
			}
		})
	}
}
