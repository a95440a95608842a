package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// queueLength is in packets. The kernel's default of 500 is less than what a
// handful of bulk flows may have on the way, and what does not fit is lost.
const queueLength = 4096

const sysctls = "/proc/sys/net/"

// prepare sets the device up but for its addresses.
func (d *Device) prepare() error {
	for _, s := range []struct{ key, value string }{
		// For clients that are bound to 127.0.0.1.
		{"route_localnet", "1"},
		// The larger of this and conf/all counts.
		{"rp_filter", "0"},
	} {
		if err := d.set("ipv4", s.key, s.value); err != nil {
			return err
		}
	}
	if err := d.routes.LinkSetMulticastOff(d.link); err != nil {
		return fmt.Errorf("turn multicast off: %w", err)
	}
	if err := d.routes.LinkSetMTU(d.link, MTU); err != nil {
		return fmt.Errorf("set the MTU: %w", err)
	}
	if err := d.routes.LinkSetTxQLen(d.link, queueLength); err != nil {
		return fmt.Errorf("set the queue's length: %w", err)
	}
	if err := d.silenceIPv6(); err != nil {
		return err
	}
	if err := d.routes.LinkSetUp(d.link); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

// silenceIPv6 keeps the kernel from sending anything by itself when the device
// comes up.
func (d *Device) silenceIPv6() error {
	for _, s := range []struct{ key, value string }{
		{"addr_gen_mode", "1"}, // none
		{"accept_ra", "0"},
		{"autoconf", "0"},
		{"router_solicitations", "0"},
		{"accept_dad", "0"},
	} {
		if err := d.set("ipv6", s.key, s.value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// enableIPv6 returns the reason why there is no IPv6, or nil. A guest that has
// no IPv6 loopback has no program that wants the host's.
func (d *Device) enableIPv6() error {
	off, err := os.ReadFile(sysctls + "ipv6/conf/lo/disable_ipv6")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("the guest's kernel has no IPv6")
	case err != nil:
		return err
	case strings.TrimSpace(string(off)) != "0":
		return errors.New("the guest has IPv6 disabled (net.ipv6.conf.lo.disable_ipv6)")
	}
	return d.set("ipv6", "disable_ipv6", "0")
}

func (d *Device) set(family, key, value string) error {
	path := sysctls + family + "/conf/" + d.name + "/" + key
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0)
}
