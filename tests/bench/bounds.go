//go:build linux

package main

import "fmt"

// A bound is what vmbridge is to reach: a limit for a metric, in the metric's
// unit or as a ratio to another subject.
type bound struct {
	metric  string
	against string // the subject of the ratio; "" for an absolute limit
	atMost  bool   // else at least
	limit   float64
}

func bounds() []bound {
	return []bound{
		{metric: "up1", against: splice, limit: 0.65},
		{metric: "down1", against: splice, limit: 0.65},
		{metric: "up1", against: mux, limit: 1.25},
		{metric: "down1", against: mux, limit: 1.25},
		{metric: "rr.p50", against: splice, atMost: true, limit: 1.25},
		{metric: "conn1", against: splice, limit: 1},
		{metric: "conn32", against: splice, limit: 1},
		{metric: "udprr.p50", against: datagrams, atMost: true, limit: 1.25},
		{metric: "udpflood.received", against: pasta, limit: 1.2},
		{metric: "listen.open.p50", atMost: true, limit: 3},
		{metric: "listen.open.p95", atMost: true, limit: 20},
		{metric: "ports.open", atMost: true, limit: 2},
		{metric: "ports.memory.host", atMost: true, limit: 150},
		{metric: "idle.memory.host", atMost: true, limit: 25},
		{metric: "idle.memory.guest", atMost: true, limit: 25},
		{metric: "idleconns.host", atMost: true, limit: 12},
		{metric: "idleconns.guest", atMost: true, limit: 12},
		{metric: "idle.cpu.host", atMost: true, limit: 0.2},
		{metric: "idle.cpu.guest", atMost: true, limit: 0.2},
		{metric: "reach.up1", against: direct, limit: 0.12},
		{metric: "reach.down1", against: direct, limit: 0.12},
		{metric: "reach.refused.p99", atMost: true, limit: 100},
		{metric: "reach.idle.cpu.guest", atMost: true, limit: 0.2},
	}
}

// A Verdict is a bound with what was measured.
type Verdict struct {
	Metric   string   `json:"metric"`
	Bound    string   `json:"bound"`
	Measured *float64 `json:"measured"` // nil: not measured
	Reached  bool     `json:"reached"`
}

// judge compares a report with the bounds.
func (r *report) judge() []Verdict {
	rows := make(map[string]metric)
	for _, m := range metrics() {
		rows[m.key] = m
	}
	var verdicts []Verdict
	for _, b := range bounds() {
		m := rows[b.metric]
		sign, unit := "at least", " "+m.unit
		if b.atMost {
			sign = "at most"
		}
		if b.against != "" {
			unit = " of " + b.against
		}
		v := Verdict{Metric: m.label, Bound: fmt.Sprintf("%s %v%s", sign, b.limit, unit)}
		value, ok := r.value(m, vmbridge)
		if b.against != "" && ok {
			value, ok = r.ratio(m, b.against)
		}
		if ok {
			v.Measured = &value
			v.Reached = value <= b.limit == b.atMost || value == b.limit
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}
