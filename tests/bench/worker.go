//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
)

// Hidden commands: what this binary is when it starts itself again.
const (
	cmdClient    = "@client"
	cmdServer    = "@server"
	cmdSplice    = "@splice"
	cmdYamux     = "@yamux"
	cmdDatagrams = "@datagrams"
)

// runHidden runs a hidden command, if args are one.
func runHidden(args []string) (ran bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case cmdClient:
		return true, serveRPC(&Client{})
	case cmdServer:
		server, err := newServer()
		if err != nil {
			return true, err
		}
		return true, serveRPC(server)
	case cmdSplice, cmdYamux, cmdDatagrams:
		return true, runRelay(args)
	}
	return false, nil
}

// self returns a command that starts this binary again, even if the file has
// been replaced meanwhile.
func self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	return cmd
}

// serveRPC serves the exported methods of receiver on standard input and
// output, until the input ends.
func serveRPC(receiver any) error {
	server := rpc.NewServer()
	if err := server.RegisterName("Worker", receiver); err != nil {
		return err
	}
	server.ServeConn(stdio{os.Stdin, os.Stdout})
	return nil
}

// stdio joins two one-way files to one stream.
type stdio struct {
	io.ReadCloser
	out io.WriteCloser
}

func (s stdio) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s stdio) Close() error                { return errors.Join(s.ReadCloser.Close(), s.out.Close()) }

// A worker is a child that serves RPC: a Client or a Server.
type worker struct {
	*process
	rpc *rpc.Client
}

// startWorker starts a hidden command that serves RPC.
func startWorker(s *spawner, ns *namespace, name, command string) (*worker, error) {
	cmd := self(command)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := s.start(ns, name, cmd)
	if err != nil {
		return nil, err
	}
	return &worker{process: p, rpc: rpc.NewClient(stdio{out, in})}, nil
}

// call calls a method of the worker and waits for the answer or for ctx.
func (w *worker) call(ctx context.Context, method string, args, reply any) error {
	call := w.rpc.Go("Worker."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("%s: %s: %w", w.name, method, call.Error)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %s: %w", w.name, method, context.Cause(ctx))
	}
}

// None is for methods without arguments or without a result.
type None struct{}
