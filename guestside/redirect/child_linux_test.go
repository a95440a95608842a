package redirect

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// envChild tells the test program to be another one: the agent, or a client.
const envChild = "VMBRIDGE_TEST_REDIRECT"

// TestMain also is the children's main: the agent is exempt from its own
// programs, so tests need another process for it, or for what is not the agent.
func TestMain(m *testing.M) {
	switch os.Getenv(envChild) {
	case "":
		os.Exit(m.Run())
	case "agent":
		agentMain()
	case "client":
		clientMain()
	}
}

// agentMain does what the lines of standard input say and answers each with a
// line, until the input ends.
func agentMain() {
	var r *Redirect
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		answer, err := "", error(nil)
		switch command {
		case "attach":
			var cfg Config
			if err = json.Unmarshal([]byte(argument), &cfg); err == nil {
				r, err = Attach(cfg)
			}
		case "detach":
			err = errors.Join(r.Close(), r.Close()) // twice, since it is idempotent
		case "ask":
			var c call
			if err = json.Unmarshal([]byte(argument), &c); err == nil {
				answer = c.do().String()
			}
		}
		if err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Println(answer)
	}
}

// clientMain makes the call in the first argument, under a filter of system
// calls when there is a second.
func clientMain() {
	var c call
	if err := json.Unmarshal([]byte(os.Args[1]), &c); err != nil {
		panic(err)
	}
	if len(os.Args) > 2 {
		if err := filterCalls(); err != nil {
			fmt.Println("seccomp:", err)
			return
		}
	}
	fmt.Println(c.do())
}

// child is a command of this program in a network namespace.
func child(kind string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	// The race detector would keep the process for a second after its end.
	cmd.Env = append(os.Environ(), envChild+"="+kind, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// agent is a process that attaches programs.
type agent struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startAgent(t testing.TB, in *space, prepare func(*exec.Cmd)) *agent {
	t.Helper()
	a := &agent{t: t, cmd: child("agent")}
	if prepare != nil {
		prepare(a.cmd)
	}
	stdin, err := a.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.in, a.out = stdin, bufio.NewReader(stdout)
	if err := in.do(a.cmd.Start); err != nil {
		t.Fatal("start the agent:", err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = a.cmd.Wait() // it may have been killed, and waited for
	})
	return a
}

// command has the agent do something and gives its answer.
func (a *agent) command(command string, argument any) string {
	a.t.Helper()
	text, err := json.Marshal(argument)
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(a.in, "%s %s\n", command, text); err != nil {
		a.t.Fatal(command, err)
	}
	answer, err := a.out.ReadString('\n')
	if err != nil {
		a.t.Fatal(command, err)
	}
	return strings.TrimSpace(answer)
}

// must is command for what cannot fail.
func (a *agent) must(command string, argument any) {
	a.t.Helper()
	if answer := a.command(command, argument); answer != "" {
		a.t.Fatalf("%s: %s", command, answer)
	}
}

// kill ends the agent as kill -9 does, and returns when it is gone.
func (a *agent) kill() {
	a.t.Helper()
	if err := a.cmd.Process.Signal(unix.SIGKILL); err != nil {
		a.t.Fatal(err)
	}
	_ = a.cmd.Wait() // it ended by a signal
}
