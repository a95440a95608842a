package install

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/vmbridge/vmbridge/guestside/ready"
)

//go:embed vmbridge-guest.openrc
var openRCScript string

// What the script names as well.
const (
	openRCReady = "/run/vmbridge-guest.ready"
	openRCLog   = "/var/log/vmbridge-guest.log"
)

// runlevel is the one that machines boot into.
const runlevel = "default"

// logTail is how much of the log is looked at for its last lines, in bytes.
const logTail = 4 << 10

type openRC struct{ *guest }

func (openRC) name() string { return "OpenRC" }

func (o openRC) installed() bool {
	for _, program := range []string{"rc-update", "rc-service"} {
		if _, ok := o.commands.find(program); !ok {
			return false
		}
	}
	return true
}

func (o openRC) running() bool {
	_, err := os.Lstat(o.at("/run/openrc/softlevel"))
	return err == nil && o.installed()
}

func (openRC) unit() unitFile {
	return unitFile{path: "/etc/init.d/" + service, mode: 0o755, text: openRCScript}
}

func (o openRC) enable(ctx context.Context) error {
	_, err := o.commands.run(ctx, "rc-update", "add", service, runlevel)
	return err
}

// restart listens for the agent, because supervise-daemon counts as started
// whatever becomes of what it starts.
func (o openRC) restart(ctx context.Context) error {
	socket, err := ready.Listen(o.at(openRCReady))
	if err != nil {
		return err
	}
	defer socket.Close()
	if _, err := o.commands.run(ctx, "rc-service", service, "restart"); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, o.StartTimeout)
	defer cancel()
	if err := socket.Wait(waiting); err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the agent does not serve after %s", o.StartTimeout)
		}
		return err
	}
	_, err = o.commands.run(ctx, "rc-service", service, "status")
	return err
}

func (o openRC) lastWords(context.Context) ([]string, error) {
	f, err := os.Open(o.at(openRCLog))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(end-logTail, 0), io.SeekStart)
	}
	tail, err := io.ReadAll(io.LimitReader(f, logTail))
	if err != nil {
		return nil, err
	}
	return lastLines(string(tail)), nil
}

func (o openRC) disable(ctx context.Context) error {
	if o.running() {
		if _, err := o.commands.run(ctx, "rc-service", "--ifstarted", service, "stop"); err != nil {
			return err
		}
	}
	if !o.installed() {
		return nil
	}
	// rc-update fails where there is nothing to take out.
	listed, err := o.commands.run(ctx, "rc-update", "show", runlevel)
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(listed), service) {
		return nil
	}
	_, err = o.commands.run(ctx, "rc-update", "delete", service, runlevel)
	return err
}

func (openRC) forget(context.Context) error { return nil }
