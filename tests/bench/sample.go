//go:build linux

package main

import (
	"errors"
	"slices"
	"time"
)

// A sample is one run of a measure on one bed: values by the end of the
// metric's key, in seconds, bytes, percent or per second.
type sample map[string]float64

// errNotApplicable is returned by a measure that means nothing on a bed.
var errNotApplicable = errors.New("does not apply")

// median returns the median of values, which must not be empty.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// quantiles sorts took and returns its quantiles by nearest rank.
func quantiles(took []time.Duration) Quantiles {
	if len(took) == 0 {
		return Quantiles{}
	}
	slices.Sort(took)
	rank := func(percent int) time.Duration {
		return took[max(0, (len(took)*percent+99)/100-1)]
	}
	return Quantiles{Count: len(took), P50: rank(50), P95: rank(95), P99: rank(99)}
}
