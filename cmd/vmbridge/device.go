package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/vhostdevice"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// deviceFlags are the flags of vmbridge device.
type deviceFlags struct {
	socket   string
	cid      uint32
	idleExit time.Duration
	logFile  string
	log      program.LogFlags
}

func deviceCommand() *cobra.Command {
	var flags deviceFlags
	cmd := &cobra.Command{
		Use:   "device --socket PATH --cid N",
		Short: "Run a vsock device for QEMU (a vhost-user link starts it by itself)",
		Long: `Run a vhost-user vsock device for a plain QEMU, which needs no kernel module and
no root, until it is interrupted. A link vhost-user:///PATH?cid=N starts it by
itself, and finds one that runs already.

QEMU connects to PATH when it starts, and never again: the device has to run
before, and as long as the virtual machine does. Start QEMU with these flags,
SIZE being the memory's size, the same as with -m:

  ` + vhostdevice.QEMUFlags("PATH") + `

Programs of this user connect to a port of the guest at PATH.hybrid, with the
protocol of Firecracker: "CONNECT PORT" is answered by "OK PORT", or by "ERR" and
the reason. Both sockets are for this user alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := device(cmd.Context(), flags, cmd.ErrOrStderr()); err != nil {
				return fmt.Errorf("device: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.socket, "socket", "", "the unix socket that QEMU connects to")
	f.Uint32Var(&flags.cid, "cid", 0, "the guest's context ID, from 3 up")
	f.DurationVar(&flags.idleExit, "idle-exit", 0, "end after this time without QEMU and clients (default: never)")
	f.StringVar(&flags.logFile, "log-file", "", "log to this file (1 MB, and one old file), not to standard error")
	flags.log.Register(f)
	return cmd
}

func device(ctx context.Context, flags deviceFlags, stderr io.Writer) (err error) {
	if flags.socket == "" {
		return program.Usage(errors.New("--socket PATH is missing"))
	}
	if flags.idleExit < 0 {
		return program.Usage(fmt.Errorf("--idle-exit: %s is negative", flags.idleExit))
	}
	path, err := filepath.Abs(flags.socket)
	if err != nil {
		return fmt.Errorf("--socket: %w", err)
	}
	endpoint, err := transport.Parse(fmt.Sprintf("vhost-user://%s?cid=%d", path, flags.cid))
	if err != nil {
		return program.Usage(fmt.Errorf("--socket, --cid: %w", err))
	}
	if flags.logFile != "" {
		file := &lumberjack.Logger{Filename: flags.logFile, MaxSize: 1, MaxBackups: 1}
		defer file.Close()
		stderr = file
	}
	logger, err := flags.log.Logger(stderr)
	if err != nil {
		return err
	}
	err = vhostdevice.Serve(ctx, vhostdevice.Config{
		Endpoint: endpoint, IdleExit: flags.idleExit, Version: program.Version(version), Logger: logger,
	})
	if err != nil && flags.logFile != "" {
		logger.Error(program.OneLine(err.Error())) // whoever started us in the background reads it there
	}
	return err
}
