package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	mdnetlink "github.com/mdlayher/netlink"
	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrBusy is in the error of Open when somebody else has the device's name or
// our routing table in this network namespace.
var ErrBusy = errors.New("in use")

// MTU of the device, the largest that there is: fewer packets for the same
// bytes, and hardly a datagram that needs fragments. Package netstack has the
// figures.
const MTU = 65535

// Config of a device. The zero value is good.
type Config struct {
	// Name of the device; empty means vmbridge0.
	Name string
	// IPv4 and IPv6 are the host addresses to use; the guest's own differs in
	// the last bit. Zero chooses a pair that overlaps no route.
	IPv4, IPv6 netip.Addr
	// Log receives repairs of the rules; nil means the standard logger.
	Log logrus.FieldLogger
}

// Addresses of a device.
type Addresses struct {
	Host4, Guest4 netip.Addr
	Host6, Guest6 netip.Addr // zero when there is no IPv6
	NoIPv6        error      // why there is none, or nil
}

// Device is an open TUN device that is up, has its addresses, and is reached
// through the host addresses.
type Device struct {
	file      *os.File
	name      string
	addresses Addresses
	log       logrus.FieldLogger

	routes   *netlink.Handle // of the namespace in which Open was called
	link     netlink.Link
	families []family
	notices  *mdnetlink.Conn
	watching sync.WaitGroup

	closing  sync.Once
	closeErr error
}

// Open makes the device in the network namespace of the calling thread. It
// needs CAP_NET_ADMIN. The error names what is missing or who is in the way.
func Open(cfg Config) (*Device, error) {
	if cfg.Name == "" {
		cfg.Name = "vmbridge0"
	}
	if cfg.Log == nil {
		cfg.Log = logrus.StandardLogger()
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	routes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	d := &Device{name: cfg.Name, log: cfg.Log, routes: routes}
	if err := d.open(cfg); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("TUN device %s: %w", cfg.Name, err)
	}
	return d, nil
}

func (c Config) check() error {
	if c.IPv4.IsValid() && (!c.IPv4.Is4() || !c.IPv4.IsGlobalUnicast() && !c.IPv4.IsLinkLocalUnicast()) {
		return fmt.Errorf("host address %v is no IPv4 unicast address", c.IPv4)
	}
	if c.IPv6.IsValid() && (!c.IPv6.Is6() || c.IPv6.Is4In6() || !c.IPv6.IsGlobalUnicast()) {
		return fmt.Errorf("host address %v is no IPv6 unicast address with global scope", c.IPv6)
	}
	return nil
}

func (d *Device) open(cfg Config) error {
	var err error
	if d.file, err = create(cfg.Name); err != nil {
		return err
	}
	if d.link, err = d.routes.LinkByName(cfg.Name); err != nil {
		return fmt.Errorf("find it: %w", err)
	}
	if err := d.removeStaleRules(); err != nil {
		return err
	}
	taken, err := d.taken()
	if err != nil {
		return err
	}
	p4, err := choose(cfg.IPv4, pair4, taken)
	if err != nil {
		return err
	}
	if err := d.prepare(); err != nil {
		return err
	}
	if err := d.add(unix.AF_INET, p4); err != nil {
		return err
	}
	d.addresses.Host4, d.addresses.Guest4 = p4.host, p4.guest

	d.addresses.NoIPv6 = d.openIPv6(cfg, taken)
	return d.watch()
}

// openIPv6 returns why there is no IPv6, or nil.
func (d *Device) openIPv6(cfg Config, taken []netip.Prefix) error {
	if err := d.enableIPv6(); err != nil {
		return err
	}
	p6, err := choose(cfg.IPv6, pair6, taken)
	if err != nil {
		return err
	}
	if err := d.add(unix.AF_INET6, p6); err != nil {
		return err
	}
	d.addresses.Host6, d.addresses.Guest6 = p6.host, p6.guest
	return nil
}

// Name of the device.
func (d *Device) Name() string { return d.name }

// Addresses of the device. They do not change.
func (d *Device) Addresses() Addresses { return d.addresses }

// File reads and writes packets, each behind a virtio_net_hdr of 10 bytes in
// which either side may leave a TCP or UDP checksum to the other. It is
// non-blocking and belongs to the Device.
func (d *Device) File() *os.File { return d.file }

// Close removes the rules and the device, with its addresses and routes. It is
// idempotent. A Read of the file must have ended before, or the device stays
// until it does.
func (d *Device) Close() error {
	d.closing.Do(func() {
		if d.notices != nil {
			_ = d.notices.Close()
		}
		d.watching.Wait()
		var errs []error
		for _, f := range d.families {
			errs = append(errs, d.removeRules(f))
		}
		if d.file != nil {
			errs = append(errs, d.file.Close())
		}
		d.routes.Close()
		if err := errors.Join(errs...); err != nil {
			d.closeErr = fmt.Errorf("remove TUN device %s: %w", d.name, err)
		}
	})
	return d.closeErr
}
