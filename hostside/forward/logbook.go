package forward

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/product"
)

// The log has room for lines about single forwards while they are few; a burst
// beyond is told in a line per kind.
const (
	logBurst     = 50
	logPerSecond = 10
)

// logbook writes what happened to forwards. It belongs to the worker, which holds
// no lock while it writes: a terminal that has stopped must not stop forwards.
type logbook struct {
	log    logrus.FieldLogger
	tokens float64
	at     time.Time
	// products are those that have been mentioned.
	products map[carrying]struct{}
}

// carrying is what a line about ports that are carried is about.
type carrying struct {
	link string
	by   product.VM
}

func newLogbook(log logrus.FieldLogger) *logbook {
	return &logbook{log: log, tokens: logBurst, at: time.Now(), products: make(map[carrying]struct{})}
}

func (b *logbook) allow(n int, now time.Time) bool {
	b.tokens = min(logBurst, b.tokens+now.Sub(b.at).Seconds()*logPerSecond)
	b.at = now
	if float64(n) > b.tokens {
		return false
	}
	b.tokens -= float64(n)
	return true
}

func (b *logbook) write(lines []logLine) {
	b.writeProducts(lines)
	if b.allow(len(lines), time.Now()) {
		for _, l := range lines {
			b.writeLine(l)
		}
		return
	}
	type kind struct {
		text, link string
	}
	batches := make(map[kind][]logLine)
	for _, l := range lines {
		k := kind{l.text, l.link}
		batches[k] = append(batches[k], l)
	}
	for k, batch := range batches {
		if len(batch) == 1 {
			b.writeLine(batch[0])
			continue
		}
		ports := make([]uint16, len(batch))
		for i, l := range batch {
			ports[i] = l.port
		}
		entry := b.log.WithFields(logrus.Fields{"link": k.link, "count": len(batch), "ports": ranges(ports)})
		if why := batch[0].why; why != "" {
			entry = entry.WithField("example", why)
		}
		entry.Log(batch[0].level, k.text)
	}
}

// writeProducts tells of each product once, and takes the lines about its ports for
// details from then on: there may be hundreds, and they are as they should be.
func (b *logbook) writeProducts(lines []logLine) {
	for i := range lines {
		l := &lines[i]
		if l.by == (product.VM{}) {
			continue
		}
		l.level = logrus.DebugLevel
		k := carrying{l.link, l.by}
		if _, told := b.products[k]; told {
			continue
		}
		b.products[k] = struct{}{}
		b.log.WithFields(logrus.Fields{"link": l.link, "product": l.by.String(), "example": l.why}).
			Info("the VM's own product carries ports; they open here when it lets go")
	}
}

func (b *logbook) writeLine(l logLine) {
	fields := logrus.Fields{"link": l.link, "guest": l.listener.Key.String()}
	if l.port != l.listener.Port {
		fields["host_port"] = l.port
	}
	if l.why != "" {
		fields["reason"] = l.why
	}
	if o := l.listener.Owner; o.Container != "" {
		fields["container"] = o.Container
	} else if o.Process != "" {
		fields["process"] = o.Process
	}
	b.log.WithFields(fields).Log(l.level, l.text)
}

// ranges words a set of ports: "80 8000-8999", cut where it gets long.
func ranges(ports []uint16) string {
	const most = 8
	slices.Sort(ports)
	ports = slices.Compact(ports)
	var out []string
	for i := 0; i < len(ports); {
		j := i
		for j+1 < len(ports) && ports[j+1] == ports[j]+1 {
			j++
		}
		if len(out) == most {
			out = append(out, "...")
			break
		}
		if i == j {
			out = append(out, fmt.Sprint(ports[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", ports[i], ports[j]))
		}
		i = j + 1
	}
	return strings.Join(out, " ")
}
