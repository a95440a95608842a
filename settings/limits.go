package settings

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

const (
	kibibyte = 1 << 10
	mebibyte = 1 << 20
	gibibyte = 1 << 30
)

// count is a whole number from least to greatest.
func count(least, greatest int) kind[int] {
	return kind[int]{
		read: func(n *yaml.Node) (int, error) {
			if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
				if v, err := strconv.Atoi(n.Value); err == nil && least <= v && v <= greatest {
					return v, nil
				}
			}
			return 0, fmt.Errorf("must be a whole number from %d to %d%s", least, greatest, got(n))
		},
		node: func(v int) *yaml.Node { return scalar(strconv.Itoa(v)) },
	}
}

// duration is a time with its unit, in milliseconds at the finest.
func duration(least, greatest time.Duration) kind[time.Duration] {
	return kind[time.Duration]{
		read: func(n *yaml.Node) (time.Duration, error) {
			if n.Kind == yaml.ScalarNode {
				v, err := time.ParseDuration(n.Value)
				if err == nil && least <= v && v <= greatest && v%time.Millisecond == 0 {
					return v, nil
				}
			}
			return 0, fmt.Errorf("must be a time from %s to %s such as 90s, 5m or 1h30m%s",
				formatDuration(least), formatDuration(greatest), got(n))
		},
		node: func(v time.Duration) *yaml.Node { return scalar(formatDuration(v)) },
	}
}

// formatDuration says 180s rather than 3m0s, and 24h rather than 86400s.
func formatDuration(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Second == 0:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return d.String()
}

// size is a number of bytes, in whole KiB, MiB or GiB.
func size(least, greatest int64) kind[int64] {
	return kind[int64]{
		read: func(n *yaml.Node) (int64, error) {
			if n.Kind == yaml.ScalarNode {
				if v, ok := parseSize(n.Value); ok && least <= v && v <= greatest {
					return v, nil
				}
			}
			return 0, fmt.Errorf("must be a size from %s to %s such as 512MiB or 2GiB%s",
				formatSize(least), formatSize(greatest), got(n))
		},
		node: func(v int64) *yaml.Node { return scalar(formatSize(v)) },
	}
}

// units are in falling order.
var units = []struct {
	name  string
	bytes int64
}{{"GiB", gibibyte}, {"MiB", mebibyte}, {"KiB", kibibyte}}

func parseSize(s string) (int64, bool) {
	for _, u := range units {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			v, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
			return int64(v) * u.bytes, err == nil
		}
	}
	return 0, false
}

func formatSize(v int64) string {
	for _, u := range units {
		if v%u.bytes == 0 {
			return fmt.Sprintf("%d%s", v/u.bytes, u.name)
		}
	}
	return strconv.FormatInt(v, 10)
}
