//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// options say what to run.
type options struct {
	subjects []*subject
	measures []*measure
	repeats  int
	duration time.Duration // of one run of a measure
	progress io.Writer
}

// measurePatience bounds one run of a measure, over its duration.
const measurePatience = 90 * time.Second

// run builds the beds, measures and returns the report. It leaves no process
// behind.
func run(ctx context.Context, o options, dir string) (*report, error) {
	congestion := congestionControl()
	r := newReport(describeMachine(congestion), o)
	s := newSpawner(dir)
	defer s.stop()

	var beds []*bed
	for _, sub := range o.subjects {
		if sub.missing != nil {
			if why := sub.missing(); why != "" {
				r.note(sub.name, "%s", why)
				continue
			}
		}
		b, err := newBed(ctx, sub, s, congestion)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			r.note(sub.name, "%v", err)
			continue
		}
		defer b.close()
		beds = append(beds, b)
		if sub.describe != nil {
			text, err := sub.describe(b)
			if err != nil {
				text = err.Error()
			}
			r.note(sub.name, "%s", text)
		}
	}

	for round := range o.repeats {
		for _, m := range o.measures {
			if m.once && round > 0 {
				continue
			}
			fmt.Fprintf(o.progress, "round %d of %d: %s\n", round+1, o.repeats, m.name)
			if m.together {
				measureTogether(ctx, m, beds, o.duration, r)
			} else {
				// Each round begins with another bed, so that none always
				// follows the same neighbour.
				for i := range beds {
					measureOne(ctx, m, beds[(i+round)%len(beds)], o.duration, r)
				}
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
		}
	}
	return r, nil
}

// measureTogether runs a measure on all beds at once.
func measureTogether(ctx context.Context, m *measure, beds []*bed, d time.Duration, r *report) {
	var all sync.WaitGroup
	for _, b := range beds {
		all.Go(func() { measureOne(ctx, m, b, d, r) })
	}
	all.Wait()
}

// measureOne runs a measure on a bed and files its sample, or why there is none.
func measureOne(ctx context.Context, m *measure, b *bed, d time.Duration, r *report) {
	if !m.on(b.subject.carries) || b.broken != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d+measurePatience)
	defer cancel()
	s, err := m.run(ctx, b, d)
	switch {
	case errors.Is(err, errNotApplicable):
	case err != nil:
		err = errors.Join(err, b.alive())
		r.note(b.subject.name, "%s: %v", m.name, err)
		if ctx.Err() != nil || b.alive() != nil {
			b.broken = err // what does not answer would hold up every measure
		}
	default:
		column, prefixes := b.subject.files()
		for _, p := range prefixes {
			r.add(p+m.name, column, s)
		}
	}
}
