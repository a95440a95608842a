package sandbox

import (
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
)

func TestLogLines(t *testing.T) {
	logger, hook := test.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	w := &logLines{logger: logger.WithField("sandbox", "x")}
	// Pieces that do not respect lines.
	for _, piece := range []string{
		`{"level":"warning","msg":"ca`, "n't\",\"n\":3}\npanic: \x1b[31mred\n", "\n",
		`{"level":"fatal","msg":"end` + `\u001b"}` + "\n", "no end",
	} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	type line struct {
		level logrus.Level
		text  string
	}
	want := []line{
		{logrus.WarnLevel, "agent: can't"},
		{logrus.WarnLevel, "agent: panic: \ufffd[31mred"},
		{logrus.ErrorLevel, "agent: end\ufffd"},
	}
	entries := hook.AllEntries()
	if len(entries) != len(want) {
		t.Fatalf("got %d lines, want %d", len(entries), len(want))
	}
	for i, e := range entries {
		if got := (line{e.Level, e.Message}); got != want[i] {
			t.Errorf("line %d: got %v, want %v", i, got, want[i])
		}
	}
	if entries[0].Data["n"] != "3" || entries[0].Data["sandbox"] != "x" {
		t.Errorf("fields: %v", entries[0].Data)
	}
}

func FuzzLogLines(f *testing.F) {
	f.Add("{\"level\":\"info\",\"msg\":\"m\",\"a\":{\"b\":[1]}}\n", 3)
	f.Add("{\"msg\":1,\"level\":null}\nx\n", 1)
	f.Add(strings.Repeat("x", maxLogLine+1)+"\n", 100)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		logger, hook := test.NewNullLogger()
		w := &logLines{logger: logger.WithField("sandbox", "x")}
		cut = max(min(cut, len(text)), 0)
		w.Write([]byte(text[:cut]))
		w.Write([]byte(text[cut:]))
		if len(w.part) > maxLogLine {
			t.Errorf("%d bytes are kept of one line", len(w.part))
		}
		for _, e := range hook.AllEntries() {
			if strings.ContainsAny(e.Message, "\n\x1b") {
				t.Errorf("message %q", e.Message)
			}
		}
	})
}
