package hostreach

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/vmbridge/vmbridge/guestside/netstack"
	"github.com/vmbridge/vmbridge/guestside/redirect"
	"github.com/vmbridge/vmbridge/guestside/tun"
	"github.com/vmbridge/vmbridge/vmbridge/association"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Bounds on new UDP clients. Each costs both sides a hundred times a datagram, so
// that a program which floods closed ports would take the processors from every
// other. What exceeds them is lost, as datagrams are.
const (
	newClientsPerSecond = 4000
	newClientsAtOnce    = 4096
)

// service is host reach while it is on.
type service struct {
	log     logrus.FieldLogger
	session func() *link.Session
	stats   link.Stats
	ctx     context.Context
	cancel  context.CancelFunc

	device   *tun.Device
	stack    *netstack.Stack
	redirect *redirect.Redirect
	// ready is closed when all parts are there. Nobody has been told the host
	// address before.
	ready chan struct{}

	associations *association.Table[client]
	newClients   *rate.Limiter // of associations
	datagrams    sync.Mutex    // guards batch
	batch        link.DatagramBatch
}

// start makes the parts, outermost last: nothing is redirected before there is
// somebody to take it.
func start(cfg Config, session func() *link.Session) (*service, error) {
	s := &service{log: cfg.Log, session: session, ready: make(chan struct{}),
		associations: association.New[client](association.Limits{}, nil),
		newClients:   rate.NewLimiter(newClientsPerSecond, newClientsAtOnce)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.open(cfg); err != nil {
		return nil, errors.Join(err, s.close())
	}
	close(s.ready)
	return s, nil
}

func (s *service) open(cfg Config) (err error) {
	if s.device, err = tun.Open(tun.Config{IPv4: cfg.IPv4, IPv6: cfg.IPv6, Log: cfg.Log}); err != nil {
		return err
	}
	at := s.device.Addresses()
	if s.stack, err = netstack.New(netstack.Config{
		Device: s.device.File(), MTU: tun.MTU, Host4: at.Host4, Host6: at.Host6,
		TCP: s.connect, UDP: s.datagram,
	}); err != nil {
		return err
	}
	s.redirect, err = redirect.Attach(redirect.Config{
		Host4: at.Host4, Guest4: at.Guest4, Host6: at.Host6, Guest6: at.Guest6,
	})
	return err
}

// close ends what open has made, outermost first.
func (s *service) close() error {
	s.cancel()
	var errs []error
	if s.redirect != nil {
		errs = append(errs, s.redirect.Close())
	}
	s.associations.Close()
	if s.stack != nil {
		errs = append(errs, s.stack.Close())
	}
	if s.device != nil {
		errs = append(errs, s.device.Close())
	}
	return errors.Join(errs...)
}

// ended is closed when the device is gone.
func (s *service) ended() <-chan struct{} { return s.stack.Done() }

func (s *service) broken() bool {
	select {
	case <-s.ended():
		return true
	default:
		return false
	}
}

// addresses are the host addresses, for the log.
func (s *service) addresses() []netip.Addr {
	at := s.device.Addresses()
	if !at.Host6.IsValid() {
		return []netip.Addr{at.Host4}
	}
	return []netip.Addr{at.Host4, at.Host6}
}

// state says that it is on, and what is not carried.
func (s *service) state() message.Feature {
	on := message.Feature{State: message.HostReachOn}
	if err := s.device.Addresses().NoIPv6; err != nil {
		on.Reason = "IPv4 only: " + reason(err)
	}
	return on
}
