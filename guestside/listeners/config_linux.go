package listeners

import "github.com/sirupsen/logrus"

// Mode says how listeners are detected.
type Mode int

// The modes.
const (
	Auto Mode = iota // eBPF where it can be had, else polling
	Poll             // polling
)

// DefaultLimit is the number of listeners of one protocol that are reported
// unless Config.Limit says otherwise.
const DefaultLimit = 20000

// Config configures a Tracker. The zero value is useful.
type Config struct {
	Detect Mode
	Logger logrus.FieldLogger // nil: logrus's standard logger
	// Limit bounds the listeners of each protocol; 0 means DefaultLimit.
	Limit int
	// Ephemeral reports UDP ports that the kernel chose as well, marked as such.
	Ephemeral bool
	// EngineSockets are API sockets of Docker or Podman to ask for the names of
	// containers, besides the usual ones and those of the engines that run.
	EngineSockets []string

	self int // for tests: the process whose sockets count as the agent's own
}
