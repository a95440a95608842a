package message

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes a peer's string safe to show: invalid UTF-8, control and format
// characters (terminal escapes, line breaks, text-direction overrides) become
// U+FFFD, and the result is cut to at most limit bytes at a character boundary.
func Clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
