//go:build linux

package main

import (
	"context"
	"time"
)

// A measure runs on one bed and yields one sample. The keys of the sample's
// values, with the measure's name before them, are the keys of metrics.
type measure struct {
	name  string
	needs Carries
	// once: a single run yields many measurements, or leaves traces that
	// would falsify the next.
	once bool
	// together: it watches without using the processors, on all beds at once.
	together bool
	run      func(ctx context.Context, b *bed, d time.Duration) (sample, error)
}

// measures lists all measures in the order in which they run: memory before
// anything has grown a heap, 10,000 ports last.
func measures() []*measure {
	tcp, udp := Carries{TCP: true}, Carries{UDP: true}
	ports := Carries{FreshPorts: true}
	return []*measure{
		{name: "idle", once: true, together: true, run: idleFootprint},
		{name: "idleconns", needs: tcp, once: true, run: connectionFootprint},
		{name: "listen", needs: ports, once: true, run: listenLatency},
		{name: "up1", needs: tcp, run: throughput(1, true)},
		{name: "down1", needs: tcp, run: throughput(1, false)},
		{name: "up8", needs: tcp, run: throughput(8, true)},
		{name: "down8", needs: tcp, run: throughput(8, false)},
		{name: "rr", needs: tcp, run: roundTrip("StreamRoundTrips")},
		{name: "conn1", needs: tcp, run: connectionsPerSecond(1)},
		{name: "conn32", needs: tcp, run: connectionsPerSecond(32)},
		{name: "udprr", needs: udp, run: roundTrip("DatagramRoundTrips")},
		{name: "udpflood", needs: udp, run: datagramOverload},
		{name: "refused", needs: Carries{Refuses: true}, run: refusals},
		{name: "local", needs: Carries{Refuses: true}, run: localConnects},
		{name: "ports", needs: ports, once: true, run: openManyPorts},
	}
}

// chooseMeasures returns the measures of a comma-separated list, all for "".
func chooseMeasures(all []*measure, list string) ([]*measure, error) {
	return choose(all, func(m *measure) string { return m.name }, list)
}

// on reports whether a subject can be measured.
func (m *measure) on(c Carries) bool {
	return (c.TCP || !m.needs.TCP) && (c.UDP || !m.needs.UDP) && (c.FreshPorts || !m.needs.FreshPorts) &&
		(c.Refuses || !m.needs.Refuses)
}

// A metric is a row of the table.
type metric struct {
	key     string // of samples: measure name and value
	label   string
	unit    string
	scale   float64 // from the sample's unit to the table's
	digits  int     // after the point
	compare []string
}

// metrics lists the rows of the table.
func metrics() []metric {
	const (
		gigabits = 1e-9
		micros   = 1e6
		millis   = 1e3
		mega     = 1e-6
		kilo     = 1e-3
	)
	tcp := []string{splice, mux, pasta}
	udp := []string{datagrams, pasta}
	memory := []string{splice, mux}
	reach := []string{direct, pasta}
	return []metric{
		{"up1", "1 stream, client to server", "Gbit/s", gigabits, 2, tcp},
		{"down1", "1 stream, server to client", "Gbit/s", gigabits, 2, tcp},
		{"up8", "8 streams, client to server", "Gbit/s", gigabits, 2, tcp},
		{"down8", "8 streams, server to client", "Gbit/s", gigabits, 2, tcp},
		{"rr.p50", "TCP round trip of 1 byte, p50", "us", micros, 1, tcp},
		{"rr.p99", "TCP round trip of 1 byte, p99", "us", micros, 1, tcp},
		{"conn1", "new connections, 1 client", "1/s", 1, 0, tcp},
		{"conn32", "new connections, 32 clients", "1/s", 1, 0, tcp},
		{"udprr.p50", "UDP echo round trip, p50", "us", micros, 1, udp},
		{"udprr.p99", "UDP echo round trip, p99", "us", micros, 1, udp},
		{"udpflood.received", "UDP under overload, delivered", "1/s", 1, 0, udp},
		{"udpflood.sent", "UDP under overload, sent", "1/s", 1, 0, nil},
		{"listen.open.p50", "listen() to reachable, p50", "ms", millis, 2, nil},
		{"listen.open.p95", "listen() to reachable, p95", "ms", millis, 2, nil},
		{"listen.release.p50", "close() to released, p50", "ms", millis, 2, nil},
		{"listen.release.p95", "close() to released, p95", "ms", millis, 2, nil},
		{"ports.open", "10,000 TCP ports open", "s", 1, 2, nil},
		{"ports.close", "10,000 TCP ports released", "s", 1, 2, nil},
		{"ports.memory.host", "memory with 10,000 ports, host process", "MB", mega, 1, nil},
		{"ports.memory.guest", "memory with 10,000 ports, guest process", "MB", mega, 1, nil},
		{"idle.memory.host", "memory idle, host process", "MB", mega, 1, memory},
		{"idle.memory.guest", "memory idle, guest process", "MB", mega, 1, memory},
		{"idleconns.host", "memory per idle connection (1,000), host process", "KB", kilo, 1, memory},
		{"idleconns.guest", "memory per idle connection (1,000), guest process", "KB", kilo, 1, memory},
		{"idle.cpu.host", "CPU idle, host process", "%", 1, 3, nil},
		{"idle.cpu.guest", "CPU idle, guest process", "%", 1, 3, nil},
		{"reach.up1", "guest to host: 1 stream, client to server", "Gbit/s", gigabits, 2, reach},
		{"reach.down1", "guest to host: 1 stream, server to client", "Gbit/s", gigabits, 2, reach},
		{"reach.up8", "guest to host: 8 streams, client to server", "Gbit/s", gigabits, 2, reach},
		{"reach.down8", "guest to host: 8 streams, server to client", "Gbit/s", gigabits, 2, reach},
		{"reach.rr.p50", "guest to host: TCP round trip of 1 byte, p50", "us", micros, 1, reach},
		{"reach.conn1", "guest to host: new connections, 1 client", "1/s", 1, 0, reach},
		{"reach.conn32", "guest to host: new connections, 32 clients", "1/s", 1, 0, reach},
		{"reach.udprr.p50", "guest to host: UDP echo round trip, p50", "us", micros, 1, reach},
		{"reach.udpflood.received", "guest to host: UDP under overload, delivered", "1/s", 1, 0, reach},
		{"reach.refused.p50", "guest to host: connect() to a closed port, p50", "ms", millis, 2, nil},
		{"reach.refused.p99", "guest to host: connect() to a closed port, p99", "ms", millis, 2, nil},
		{"reach.local.p50", "connect() to the guest's own listener, p50", "us", micros, 2, []string{direct}},
		{"reach.idleconns.guest", "guest to host: memory per idle connection (1,000), guest process", "KB", kilo, 1, nil},
		{"reach.idleconns.host", "guest to host: memory per idle connection (1,000), host process", "KB", kilo, 1, nil},
		{"reach.idle.cpu.guest", "guest to host: CPU idle, guest process", "%", 1, 3, nil},
	}
}
