package vhostdevice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/hybrid"
	"github.com/vmbridge/vmbridge/hostside/vhostvsock"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// ErrUnsupported says that this system cannot have the device.
var ErrUnsupported = errors.New("vhost-user: needs Linux or macOS, on amd64 or arm64; use the vsock of your hypervisor instead")

// Config of a device.
type Config struct {
	// Endpoint is a vhost-user one: its path and its CID. Its port does not matter.
	Endpoint transport.Endpoint
	// IdleExit is how long a device that nobody uses lives; 0 is for ever.
	IdleExit time.Duration
	Version  string
	Logger   *logrus.Logger
}

// Serve is the device: it returns when ctx ends, or when the device is not used.
func Serve(ctx context.Context, c Config) error {
	if !vhostvsock.Supported() {
		return ErrUnsupported
	}
	path, hybridPath := c.Endpoint.Path(), c.Endpoint.HybridEndpoint().Path()
	// This one first: whoever finds it in use shall not touch the other, where
	// looking whether somebody listens would be taken for a virtual machine. And
	// it is the last to go, so that while it is there the device is.
	clients, err := transport.ListenUnix(ctx, hybridPath)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", hybridPath, err)
	}
	defer clients.Close()
	machines, err := transport.ListenUnix(ctx, path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	log := newLimitedLog(c.Logger)
	defer log.close()
	device, err := vhostvsock.New(machines, vhostvsock.Config{CID: c.Endpoint.CID(), Log: log.printf})
	if err != nil {
		_ = machines.Close()
		return fmt.Errorf("device at %s: %w", path, err)
	}
	d := &served{device: device, config: c}
	d.server = hybrid.New(hybrid.Config{
		Dial:   d.dial,
		Status: func() any { return d.status() },
		Log:    log.printf,
	})
	c.Logger.WithFields(logrus.Fields{"path": path, "cid": c.Endpoint.CID(), "version": c.Version, "pid": os.Getpid()}).
		Info("device started")

	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		d.watchIdle(ctx)
		_ = device.Close() // and with it its socket, before the other one
		cancel()
	})
	err = d.server.Serve(ctx, clients)
	cancel()
	work.Wait()
	c.Logger.Info("device stopped")
	return err
}

// served is a device that runs.
type served struct {
	device *vhostvsock.Device
	server *hybrid.Server
	config Config
}

func (d *served) status() Status {
	s := Status{CID: d.config.Endpoint.CID(), PID: os.Getpid(), Version: d.config.Version}
	s.Machine, s.Driver = d.device.State()
	return s
}

// stream adds to a connection what package hybrid asks for.
type stream struct{ *vhostvsock.Conn }

func (s stream) HostPort() uint32 { return s.LocalAddr().(vhostvsock.Addr).Port }

// dial connects to the guest. Its errors are what the user of a link reads in the
// status, so they hold nothing that changes with every try.
func (d *served) dial(ctx context.Context, port uint32) (hybrid.Stream, error) {
	c, err := d.device.Dial(ctx, port)
	switch {
	case err == nil:
		return stream{c}, nil
	case errors.Is(err, vhostvsock.ErrNoGuest):
		if machine, _ := d.device.State(); !machine {
			return nil, errors.New("no virtual machine has connected to the device")
		}
		return nil, errors.New("the guest has no driver for it yet, or is paused")
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("nobody listens on port %d of the guest", port)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, errors.New("the guest does not answer")
	case errors.Is(err, syscall.ECONNRESET):
		return nil, errors.New("the guest has gone")
	}
	return nil, err
}

// watchIdle returns when ctx ends or nobody has used the device for as long as
// the configuration says.
func (d *served) watchIdle(ctx context.Context) {
	if d.config.IdleExit <= 0 {
		<-ctx.Done()
		return
	}
	// The device does not tell of those who come and go, and need not: this looks.
	tick := time.NewTicker(max(d.config.IdleExit/10, time.Millisecond))
	defer tick.Stop()
	used, seen := time.Now(), int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		machine, _ := d.device.State()
		now, ever := d.server.Conns()
		if machine || now > 0 || ever != seen {
			used, seen = time.Now(), ever
		}
		if time.Since(used) >= d.config.IdleExit {
			d.config.Logger.WithField("after", d.config.IdleExit).Info("nobody uses the device")
			return
		}
	}
}
