package guestinstall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// installTimeout is for the agent to install itself, which waits until the service
// runs.
const installTimeout = 2 * time.Minute

// Config says what to install, and through what.
type Config struct {
	// Command leads to a shell of root in the guest (see ShellCommand).
	Command string
	// Key is the link's.
	Key linkkey.Key
	// Agent opens the agent for what "uname -m" says, and tells its size; it is
	// Agent, except in tests.
	Agent func(machine string) (io.ReadCloser, int64, error)
	// Out hears of progress and what the agent prints, line by line; Stderr what
	// the command writes to its standard error. Both are safe to print.
	Out, Stderr func(line string)
}

// Run installs the agent. It has cleaned up in the guest when it returns, unless
// the guest cannot be reached any more.
func Run(ctx context.Context, config Config) error {
	s, err := openShell(ctx, config.Command, config.Stderr)
	if err != nil {
		return err
	}
	defer s.close()
	i := &installation{Config: config, session: &session{shell: s, command: config.Command, out: config.Out}}
	machine, err := i.hello(ctx)
	if errors.Is(err, ErrNotRoot) {
		err = fmt.Errorf("%w: log in as root, or put sudo before vmbridge-guest, as in exec:ssh vm sudo vmbridge-guest serve --stdio", err)
	}
	if err != nil {
		return err
	}
	agent, size, err := config.Agent(machine)
	if err != nil {
		return err
	}
	defer agent.Close()
	if err := i.prepare(ctx, `t=$(mkdir -p `+directory+` && mktemp -d `+directory+`/.vmbridge-install.XXXXXX)`); err != nil {
		return fmt.Errorf("make a temporary directory in the guest: %w", err)
	}
	if _, err := i.transfer(ctx, agent, size); err != nil {
		return fmt.Errorf("send the agent: %w", err)
	}
	if err := i.install(ctx); err != nil {
		return fmt.Errorf("vmbridge-guest install: %w", err)
	}
	return i.finish(ctx)
}

type installation struct {
	Config
	*session
}

// directory is where the program goes at last.
const directory = "/usr/local/bin"

// install runs the agent that has arrived; what it prints is shown.
func (i *installation) install(ctx context.Context) error {
	ctx, done := i.within(ctx, installTimeout, "installing in the guest")
	defer done()
	order := `chmod 755 "$t/vmbridge-guest"; ` + i.say("key", `""`) +
		`; head -n 1 | "$t/vmbridge-guest" install --key-stdin; ` + i.say("installed", `"$?"`)
	if err := i.order(order); err != nil {
		return err
	}
	if _, _, err := i.answer(ctx, nil, "key"); err != nil {
		return err
	}
	if err := i.order(i.Key.String()); err != nil {
		return err
	}
	return i.succeeds(ctx, i.Out, "installed")
}

// finish has the guest clean up, and waits until it has.
func (i *installation) finish(ctx context.Context) error {
	ctx, done := i.within(ctx, stepTimeout, "cleaning up in the guest")
	defer done()
	if err := i.order(`rm -rf "$t"; t=; ` + i.say("clean", `"$?"`) + `; exit`); err != nil {
		return err
	}
	return i.succeeds(ctx, i.Out, "clean")
}
