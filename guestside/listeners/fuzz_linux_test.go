package listeners

import "testing"

func FuzzParsePortRange(f *testing.F) {
	f.Add("32768\t60999\n")
	f.Add("1 70000")
	f.Fuzz(func(t *testing.T, text string) { parsePortRange(text) })
}

func TestParsePortRange(t *testing.T) {
	for text, want := range map[string][2]uint16{
		"32768\t60999\n": {32768, 60999},
		"1 65535":        {1, 65535},
		"":               {1, 0},
		"1":              {1, 0},
		"1 70000":        {1, 0},
		"a b":            {1, 0},
	} {
		if first, last := parsePortRange(text); first != want[0] || last != want[1] {
			t.Errorf("%q: got %d to %d, want %v", text, first, last, want)
		}
	}
}
