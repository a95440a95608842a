//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if ran, err := runHidden(os.Args[1:]); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := bench(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

func bench(args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	var (
		binaries     = flags.String("bin", "bin", "directory of vmbridge and vmbridge-guest")
		subjectList  = flags.String("subjects", "", "comma-separated subjects (default all)")
		measureList  = flags.String("measures", "", "comma-separated measures (default all)")
		repeats      = flags.Int("repeats", 5, "interleaved repeats")
		duration     = flags.Duration("duration", 800*time.Millisecond, "of one run of a measure")
		markdown     = flags.Bool("markdown", false, "print Markdown")
		jsonOut      = flags.Bool("json", false, "print JSON with every sample")
		keepLogFiles = flags.Bool("keep", false, "keep the directory with logs and sockets")
	)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return errUsage // flags has said why
	}
	if flags.NArg() > 0 || *repeats < 1 || *duration <= 0 {
		return fmt.Errorf("%w: unexpected %q, repeats below 1 or duration below 0", errUsage, flags.Args())
	}
	o := options{repeats: *repeats, duration: *duration, progress: os.Stderr}
	var err error
	if o.subjects, err = chooseSubjects(subjects(*binaries), *subjectList); err != nil {
		return fmt.Errorf("%w: -subjects: %w", errUsage, err)
	}
	if o.measures, err = chooseMeasures(measures(), *measureList); err != nil {
		return fmt.Errorf("%w: -measures: %w", errUsage, err)
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, to make network namespaces")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "vmbridge-bench-")
	if err != nil {
		return err
	}
	if *keepLogFiles {
		fmt.Fprintln(os.Stderr, "logs and sockets:", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	r, err := run(ctx, o, dir)
	if err != nil {
		return err
	}
	switch {
	case *jsonOut:
		return r.writeJSON(os.Stdout)
	case *markdown:
		r.writeMarkdown(os.Stdout)
	default:
		r.writeText(os.Stdout)
	}
	return nil
}
