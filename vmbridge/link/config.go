package link

import (
	"errors"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Config is what both ends of a link need to know.
type Config struct {
	// Key is the link key. nil means that the transport itself says who the
	// peer is (stdio); both ends must agree on that.
	Key []byte
	// Name is the guest's name, sent to the host. Only a Server uses it.
	Name string
	// Handler is told what happens on the sessions.
	Handler Handler
	Log     logrus.FieldLogger

	// MaxQueuedBytes and MaxFlows are what a session begins with. See
	// Session.SetLimits.
	MaxQueuedBytes int64
	MaxFlows       int

	// now is the wall clock, which tests move.
	now func() time.Time
}

// Handler is told what happens on sessions. Up comes first and Down last for
// every session. Message, Stream and Datagrams are called by the reader of a
// connection: they must not block, or everything else on it waits.
type Handler interface {
	Up(*Session)
	Message(*Session, message.Message)
	// Stream is called for a TCP flow that the peer opened. It must lead to one
	// call of Accept or Refuse, now or later.
	Stream(*Stream)
	// Datagrams is called for a UDP flow that the peer opened. It must call
	// Accept or Refuse before it returns.
	Datagrams(*DatagramFlow)
	Down(*Session, error)
}

// Sizes and times of a session.
const (
	// initialCredit is what a peer may send on a flow before it has heard
	// from us, in bytes. 5,000 flows whose readers all stall hold 320 MB of it,
	// which is why it is no larger; a bulk flow outgrows it within a few frames.
	initialCredit = 64 << 10
	// maxWindow is how far a bulk flow's window grows: a few times what the
	// fastest transport carries while a credit frame travels back.
	maxWindow = 4 << 20
	// maxGrowth bounds the sum of what all windows of a session have grown.
	maxGrowth = 64 << 20

	defaultMaxQueuedBytes = 256 << 20
	defaultMaxFlows       = 32 << 10

	handshakeTimeout = 5 * time.Second

	// maxReason bounds a peer's reason for a goodbye, in bytes, when cleaned.
	maxReason = 1024
)

// Errors of sessions.
var (
	// ErrClosed means that Close was called.
	ErrClosed = errors.New("link closed")
	// ErrBusy means that the link has more to send than it gets rid of. It has
	// ended nothing: the next attempt may succeed.
	ErrBusy = errors.New("link busy")
	// ErrTooManyFlows means that this side has as many flows open as it may.
	ErrTooManyFlows = errors.New("too many flows on the link")
	// ErrRetired means that a flow was to be counted in Stats that are retired.
	ErrRetired = errors.New("no more flows are carried for this")
	// ErrPeerDead means that the peer has not answered within its time.
	ErrPeerDead = errors.New("the peer does not answer")
	// ErrNotAPeer means that something answered that is not the other end of a
	// link, or hung up before it said so.
	ErrNotAPeer = errors.New("no vmbridge peer answered")
)

// GoodbyeError is what the peer said when it ended the link, or refused it.
type GoodbyeError struct {
	Code   wire.Code
	Reason string // cleaned
}

func (e *GoodbyeError) Error() string {
	if e.Reason == "" {
		return "the peer ended the link: " + e.Code.String()
	}
	return "the peer ended the link: " + e.Code.String() + ": " + e.Reason
}

func (cfg Config) withDefaults() Config {
	if cfg.now == nil {
		cfg.now = time.Now
	}
	return cfg
}
