package listeners

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/owner"
	"github.com/vmbridge/vmbridge/guestside/sockdiag"
	"github.com/vmbridge/vmbridge/guestside/wake"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// initPIDNamespace is the inode of the initial pid namespace
// (PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h).
const initPIDNamespace = 0xEFFFFFFC

// Tracker tracks the listeners of one network namespace.
type Tracker struct {
	log       logrus.FieldLogger
	ephemeral bool
	detection detection
	table     *table

	conn      *sockdiag.Conn
	portRange *os.File            // ip_local_port_range of the namespace
	source    *wake.Source        // nil without eBPF
	destroyed *sockdiag.Destroyed // nil when not needed, or not to be had
	owners    *owner.Resolver
	// callers says that the process numbers of wake-ups are those of /proc.
	callers bool
	self    int // the agent's own process

	closeOnce sync.Once
	closeErr  error

	news news // from the goroutines that wait for wake-ups

	// The rest belongs to the goroutine of Run.
	protocols [2]*protocolState
	groups    map[message.Key][]*socket
	dirty     map[message.Key]struct{} // keys to publish anew
	ifnames   map[uint32]string
	ready     bool // the first snapshot is complete
	limited   bool // the limit was logged
}

// New prepares to track the network namespace of the calling thread; hooks are
// in place when it returns. It fails when the kernel cannot be asked for
// sockets at all; that there is no eBPF is no failure, see Detection. The
// Tracker must be run or closed.
func New(cfg Config) (*Tracker, error) {
	if cfg.Logger == nil {
		cfg.Logger = logrus.StandardLogger()
	}
	if cfg.Limit <= 0 {
		cfg.Limit = DefaultLimit
	}
	if cfg.self == 0 {
		cfg.self = os.Getpid()
	}
	t := &Tracker{
		log:       cfg.Logger,
		ephemeral: cfg.Ephemeral,
		detection: detection{changed: make(chan struct{})},
		self:      cfg.self,
		table:     newTable(cfg.Limit),
		news:      news{wake: make(chan struct{}, 1)},
		groups:    map[message.Key][]*socket{},
		dirty:     map[message.Key]struct{}{},
		ifnames:   map[uint32]string{},
		protocols: [2]*protocolState{newProtocolState(sockdiag.TCP), newProtocolState(sockdiag.UDP)},
	}
	if err := t.open(cfg); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Tracker) open(cfg Config) (err error) {
	if t.conn, err = sockdiag.Open(); err != nil {
		return err
	}
	// thread-self and not self: the namespace is the calling thread's.
	if t.portRange, err = os.Open("/proc/sys/net/ipv4/ip_local_port_range"); err != nil {
		return fmt.Errorf("find the ports of clients: %w", err)
	}
	if t.owners, err = owner.New(owner.Config{Sockets: cfg.EngineSockets}); err != nil {
		return err
	}
	var st unix.Stat_t
	t.callers = unix.Stat("/proc/self/ns/pid", &st) == nil && st.Ino == initPIDNamespace
	t.openWake(cfg)
	if t.tcp().plan.polled || t.udp().plan.polled {
		// Polling notices removals earlier with it, and works without it.
		if t.destroyed, err = sockdiag.OpenDestroyed(); err != nil {
			t.log.WithError(err).Debug("no notifications of destroyed sockets")
		}
	}
	return nil
}

// openWake attaches the hooks and decides what is polled.
func (t *Tracker) openWake(cfg Config) {
	t.tcp().plan.polled, t.udp().plan.polled = true, true
	if cfg.Detect == Poll {
		t.detection.means = message.Feature{State: detectPoll, Reason: "polling was asked for"}
		return
	}
	source, err := wake.Open(wake.Config{AnyPort: cfg.Ephemeral})
	if err != nil {
		t.detection.means = message.Feature{State: detectPoll, Reason: "no eBPF: " + err.Error()}
		return
	}
	t.source = source
	t.tcp().plan.polled, t.udp().plan.polled = source.TCP() != nil, source.UDP() != nil
	t.detection.means = message.Feature{State: detectEBPF}
	switch {
	case source.TCP() != nil:
		t.detection.means.Reason = "TCP is polled: " + source.TCP().Error()
	case source.UDP() != nil:
		t.detection.means.Reason = "UDP is polled: " + source.UDP().Error()
	}
}

func (t *Tracker) tcp() *protocolState { return t.protocols[0] }
func (t *Tracker) udp() *protocolState { return t.protocols[1] }

// Detection tells how listeners are detected, and gives a channel that is closed
// when that changes. State is "ebpf" or "poll", and Reason says why it is not, or
// not all of it, eBPF; or it is "unavailable" while the kernel does not tell of
// its sockets.
func (t *Tracker) Detection() (message.Feature, <-chan struct{}) { return t.detection.get() }

// Watch begins to follow the listeners. It may be called at any time, also
// before Run, and any number of times.
func (t *Tracker) Watch() *Watch { return t.table.watch() }

// Close releases everything and ends all watches. Run does so when it returns,
// and must not be running. Close is idempotent.
func (t *Tracker) Close() error {
	t.closeOnce.Do(func() {
		t.table.close()
		t.closeErr = t.closeWake()
		if t.owners != nil {
			t.owners.Close()
		}
		if t.portRange != nil {
			t.closeErr = errors.Join(t.closeErr, t.portRange.Close())
		}
		if t.conn != nil {
			t.closeErr = errors.Join(t.closeErr, t.conn.Close())
		}
	})
	return t.closeErr
}

// closeWake ends the sources of wake-ups, which makes their Next return.
func (t *Tracker) closeWake() error {
	var errs []error
	if t.source != nil {
		errs = append(errs, t.source.Close())
	}
	if t.destroyed != nil {
		errs = append(errs, t.destroyed.Close())
		t.destroyed = nil
	}
	return errors.Join(errs...)
}
