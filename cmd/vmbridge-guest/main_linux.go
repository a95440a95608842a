package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/guestside/agent"
	"github.com/vmbridge/vmbridge/guestside/hostreach"
	"github.com/vmbridge/vmbridge/guestside/install"
	"github.com/vmbridge/vmbridge/guestside/leave"
	"github.com/vmbridge/vmbridge/guestside/ready"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// version is set by the linker: -X main.version=...
var version string

const (
	// 732 is privileged, so that no ordinary process in the guest takes it first.
	defaultListen = "vsock://:732"
	defaultKey    = install.KeyFile
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "vmbridge-guest",
		Short: "The agent of vmbridge: shares what listens in this guest with the host",
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(serveCommand(), installCommand(), uninstallCommand(), &cobra.Command{
		Use:   "version",
		Short: "Tell the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), program.VersionLine("vmbridge-guest", program.Version(version)))
			return nil
		},
	})
	return program.Run(root, stderr, func(error) int { return 0 })
}

// serveFlags are the flags of vmbridge-guest serve.
type serveFlags struct {
	listen string
	stdio  bool
	key    string
	detect string
	// hostReach is "auto" or "off", and hostAddresses what it uses.
	hostReach     string
	hostAddresses []net.IP
	// leave says that the agent is in a container of the guest's engine, left that it
	// was, and notIn where it must not be.
	leave, left bool
	notIn       string
	log         program.LogFlags
}

func serveCommand() *cobra.Command {
	var flags serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the agent, in the foreground",
		Long: `Run the agent, in the foreground, until it is interrupted.

It listens for the host at one address. With --stdio it speaks on standard
input and output instead, for links of the form exec:ssh VM vmbridge-guest serve
--stdio; these need no key, and the log goes to standard error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := serve(cmd.Context(), cmd, flags); err != nil {
				return fmt.Errorf("serve: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.listen, "listen", defaultListen, "where to listen for the host: vsock://:PORT, unix:///PATH or tcp://ADDRESS:PORT")
	f.BoolVar(&flags.stdio, "stdio", false, "speak on standard input and output")
	f.StringVar(&flags.key, "key", defaultKey, "the file with the link's key")
	f.StringVar(&flags.detect, "detect", agent.DetectAuto, "how to find listeners: auto (eBPF where the kernel has it) or poll")
	f.StringVar(&flags.hostReach, "host-reach", hostReachAuto, "localhost reaches the host: auto (where the host wants it and the kernel can) or off")
	f.IPSliceVar(&flags.hostAddresses, "host-address", nil, "the address that stands for the host, one for IPv4 and one for IPv6 (default: some that overlap no route)")
	f.BoolVar(&flags.leave, leaveFlag, false, "in a container: enter the mount namespace of the engine that keeps it")
	f.BoolVar(&flags.left, leftFlag, false, "what --"+leaveFlag+" becomes")
	f.StringVar(&flags.notIn, "not-in", "", "do not serve this network namespace, the daemon's own")
	for _, name := range []string{leaveFlag, leftFlag, "not-in"} {
		_ = f.MarkHidden(name) // for the daemon, which starts containers; all exist
	}
	flags.log.Register(f)
	return cmd
}

const leaveFlag, leftFlag = "leave-container", "left-container"

func serve(ctx context.Context, cmd *cobra.Command, flags serveFlags) error {
	// Standard output belongs to the protocol.
	logger, err := flags.log.Logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if flags.stdio && cmd.Flags().Changed("listen") {
		return program.Usage(errors.New("--stdio and --listen exclude each other"))
	}
	if err := checkListen(flags.listen); err != nil {
		return program.Usage(fmt.Errorf("--listen: %w", err))
	}
	if flags.detect != agent.DetectAuto && flags.detect != agent.DetectPoll {
		return program.Usage(fmt.Errorf("--detect: %q is neither auto nor poll", flags.detect))
	}
	hostReach, err := flags.hostReachConfig()
	if err != nil {
		return program.Usage(err)
	}
	if err := flags.place(logger); err != nil {
		return err
	}
	return agent.Run(ctx, agent.Config{
		Listen:    flags.listen,
		Stdio:     flags.stdio,
		KeyFile:   flags.key,
		Detect:    flags.detect,
		HostReach: hostReach,
		Logger:    logger,
		Version:   program.Version(version),
		Serving: func() {
			if err := ready.Tell(); err != nil {
				logger.WithError(err).Warn("the agent serves, but cannot say so")
			}
		},
	})
}

// place sees to it that the agent runs where it is to run.
func (flags serveFlags) place(logger *logrus.Logger) error {
	if flags.notIn != "" {
		network, err := leave.Network()
		if err != nil {
			return fmt.Errorf("--not-in: %w", err)
		}
		if network == flags.notIn {
			return errOwnNetwork
		}
	}
	if flags.left {
		leave.Name("vmbridge-guest")
	}
	if !flags.leave {
		return nil
	}
	args := slices.Clone(os.Args)
	for i, arg := range args {
		if name, _, _ := strings.Cut(arg, "="); name == "--"+leaveFlag {
			args[i] = "--" + leftFlag
		}
	}
	if err := leave.Container(args); err != nil {
		logger.WithError(err).Warn("the agent stays in its container: it cannot ask engines for the names of containers, nor whether these are isolated")
	}
	return nil
}

var errOwnNetwork = errors.New("this engine's network is that of the daemon itself: it runs in no virtual machine, and has nothing to share")

// Values of --host-reach.
const (
	hostReachAuto = "auto"
	hostReachOff  = "off"
)

func (flags serveFlags) hostReachConfig() (hostreach.Config, error) {
	if flags.hostReach != hostReachAuto && flags.hostReach != hostReachOff {
		return hostreach.Config{}, fmt.Errorf("--host-reach: %q is neither auto nor off", flags.hostReach)
	}
	cfg := hostreach.Config{Off: flags.hostReach == hostReachOff}
	for _, ip := range flags.hostAddresses {
		a, _ := netip.AddrFromSlice(ip)
		family := &cfg.IPv6
		if a = a.Unmap(); a.Is4() {
			family = &cfg.IPv4
		}
		if family.IsValid() {
			return hostreach.Config{}, fmt.Errorf("--host-address: %s and %s are of one family", *family, a)
		}
		*family = a
	}
	return cfg, nil
}

func checkListen(url string) error {
	endpoint, err := transport.Parse(url)
	if err != nil {
		return err
	}
	return endpoint.CanListen()
}
