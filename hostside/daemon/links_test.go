package daemon

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/reach"
)

// What is applied while a link is being started, before it is listed, is not lost
// on it.
func TestLinkThatStartsCatchesUp(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	on := Settings{HostNetworking: control.On, Reach: reach.Policy{Enabled: true}}
	d := New(Config{Settings: on, Logger: log})
	defer d.engine.Close()
	defer d.reach.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	starting := &runningLink{Link: Link{Name: "slow"}, cancel: cancel}
	starting.guest = newGuest(ctx, starting.Link, d)
	defer starting.guest.carrier.Close()
	if !starting.guest.host.HostReach {
		t.Fatal("the link was not made while host reach was on")
	}
	off := on
	off.HostNetworking = control.Off
	off.Limits = Limits{Flows: 7, UDPIdle: time.Minute}
	d.Apply(off)
	d.setLinks([]*runningLink{starting})

	if starting.guest.host != d.aboutHost(off) {
		t.Errorf("the agent is told %+v, want %+v", starting.guest.host, d.aboutHost(off))
	}
	if starting.guest.limits != off.Limits {
		t.Errorf("the limits are %+v, want %+v", starting.guest.limits, off.Limits)
	}
}
