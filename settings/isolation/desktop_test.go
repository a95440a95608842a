package isolation

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf16"
)

// utf16le encodes as Notepad does when told to write Unicode.
func utf16le(s string) []byte {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return b
}

func TestToggle(t *testing.T) {
	const upper, lower = "EnhancedContainerIsolation", "enhancedContainerIsolation"
	for _, c := range []struct {
		name, text string
		want       toggle
	}{
		{"no key", `{}`, toggle{state: Unknown}},
		{"capital", `{"EnhancedContainerIsolation": true}`, toggle{true, On, false, upper + " is true"}},
		{"small", `{"enhancedContainerIsolation": true}`, toggle{true, On, false, lower + " is true"}},
		{"false", `{"EnhancedContainerIsolation": false}`, toggle{true, Off, false, upper + " is false"}},
		{"text", `{"enhancedContainerIsolation": "true"}`, toggle{true, On, false, lower + " is true"}},
		{"text false", `{"enhancedContainerIsolation": "false"}`, toggle{true, Off, false, lower + " is false"}},
		{"locked", `{"enhancedContainerIsolation": {"locked": true, "value": true}}`, toggle{true, On, true, lower + " is true"}},
		{"locked off", `{"EnhancedContainerIsolation": {"value": false, "locked": true}}`, toggle{true, Off, true, upper + " is false"}},
		{"not locked", `{"enhancedContainerIsolation": {"locked": false, "value": true}}`, toggle{true, On, false, lower + " is true"}},
		{"texts", `{"enhancedContainerIsolation": {"locked": "true", "value": "true"}}`, toggle{true, On, true, lower + " is true"}},
		{"lock left out", `{"enhancedContainerIsolation": {"value": true}}`, toggle{true, On, false, lower + " is true"}},
		{"no value", `{"enhancedContainerIsolation": {"locked": true}}`, toggle{true, Unknown, false, lower + " has no value"}},
		{"strange lock", `{"enhancedContainerIsolation": {"locked": 1, "value": true}}`, toggle{true, Unknown, false, lower + " is locked or not: 1"}},
		{"null", `{"enhancedContainerIsolation": null}`, toggle{true, Unknown, false, lower + " is neither true nor false: null"}},
		{"number", `{"enhancedContainerIsolation": 1}`, toggle{true, Unknown, false, lower + " is neither true nor false: 1"}},
		{"other text", `{"enhancedContainerIsolation": "yes"}`, toggle{true, Unknown, false, lower + ` is neither true nor false: "yes"`}},
		{"list", `{"enhancedContainerIsolation": [true]}`, toggle{true, Unknown, false, lower + " is neither true nor false: [true]"}},
		{"value in value", `{"enhancedContainerIsolation": {"value": {"value": true}}}`,
			toggle{true, Unknown, false, lower + ` is neither true nor false: {"value": true}`}},
		{"long", `{"enhancedContainerIsolation": "` + strings.Repeat("é", 99) + `"}`,
			toggle{true, Unknown, false, lower + ` is neither true nor false: "` + strings.Repeat("é", 39) + "..."}},
		{"deeper down", `{"desktop": {"enhancedContainerIsolation": true}}`, toggle{state: Unknown}},
		{"another name", `{"enhancedcontainerisolation": true, "ECIDockerSocketCmdListType": "deny"}`, toggle{state: Unknown}},
		{"contradiction", `{"EnhancedContainerIsolation": false, "enhancedContainerIsolation": true}`,
			toggle{true, On, false, upper + " is false, and " + lower + " is true"}},
		{"contradiction the other way", `{"enhancedContainerIsolation": false, "EnhancedContainerIsolation": true}`,
			toggle{true, On, false, upper + " is true, and " + lower + " is false"}},
		{"false and strange", `{"enhancedContainerIsolation": false, "EnhancedContainerIsolation": 0}`,
			toggle{true, Unknown, false, upper + " is neither true nor false: 0, and " + lower + " is false"}},
		{"agreement, one locked", `{"enhancedContainerIsolation": {"value": true, "locked": true}, "EnhancedContainerIsolation": true}`,
			toggle{true, On, true, upper + " is true, and " + lower + " is true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for form, data := range map[string][]byte{
				"UTF-8": []byte(c.text), "UTF-8 with a mark": []byte("\ufeff" + c.text), "UTF-16": utf16le(c.text),
			} {
				doc, err := parseDocument(data)
				if err != nil {
					t.Fatalf("%s: %v", form, err)
				}
				if got := doc.toggle(isolationKey); got != c.want {
					t.Errorf("%s: got %+v, want %+v", form, got, c.want)
				}
			}
		})
	}
}

func TestDocumentThatIsNone(t *testing.T) {
	for _, c := range []struct {
		text   string
		cutOff bool
	}{
		{"", true}, {" \n", true}, {"\ufeff", true}, {"{", true}, {`{"a": tr`, true}, {`{"a": "b`, true}, {`{"a": true`, true},
		{"[]", false}, {"true", false}, {"null", false}, {`{"a": true}}`, false}, {`{"a": true} {}`, false},
		{`{a: true}`, false}, {`{"a": true,}`, false}, {"\x00\x01", false}, {"[wsl2]", false},
	} {
		_, err := parseDocument([]byte(c.text))
		if err == nil || errors.Is(err, errCutOff) != c.cutOff {
			t.Errorf("%q: %v, want an error, cut off %t", c.text, err, c.cutOff)
		}
	}
	// What was written so far never counts, wherever the writer is.
	const whole = `{"AutoStart": true, "EnhancedContainerIsolation": true}`
	for n := range len(whole) {
		if _, err := parseDocument([]byte(whole[:n])); !errors.Is(err, errCutOff) {
			t.Errorf("%q: %v", whole[:n], err)
		}
	}
}
