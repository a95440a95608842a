package settings

import (
	"fmt"
	"strconv"
	"strings"
)

// unknown is the error for a key that does not exist, with the nearest of those
// that do, or else all of them.
func unknown(key string, known []string) error {
	if near := nearest(key, known); len(near) > 0 {
		return didYouMean(near)
	}
	return fmt.Errorf("%w: known here: %s", ErrUnknownKey, strings.Join(known, ", "))
}

func didYouMean(near []string) error {
	return fmt.Errorf("%w: did you mean %s?", ErrUnknownKey, strings.Join(near, " or "))
}

// nearest finds the names that were most likely meant: those that differ least,
// by a third of their letters at most, or that end in the same word.
func nearest(name string, known []string) []string {
	var near []string
	best := len(name)
	for _, k := range known {
		a, b := plain(name), plain(k)
		d := distance(a, b)
		if a == plain(lastWord(k)) {
			d = 1 // right, but in the wrong place
		}
		if 3*d > len(b) || d > best {
			continue
		}
		if d < best {
			near, best = nil, d
		}
		near = append(near, k)
	}
	return near
}

// shown is an unknown name as it can be put before people's eyes.
func shown(name string) string {
	if len(name) > 100 {
		name = name[:100] + "..."
	}
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// plain takes out what people spell differently: hostNetworking, host-networking.
func plain(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
}

func lastWord(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// distance counts the letters to insert, remove, replace or swap with their
// neighbour to make a into b.
func distance(a, b string) int {
	// Names are short; what is not is none of them.
	if len(a) > 100 || len(b) > 100 {
		return max(len(a), len(b))
	}
	var before []int // the row above previous
	previous := make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := previous[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, previous[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, previous = previous, row
	}
	return previous[len(b)]
}
