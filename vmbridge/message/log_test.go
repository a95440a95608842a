package message_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// TestLog holds H1 and H2: what a guest logs is bounded and can be printed.
func TestLog(t *testing.T) {
	want := message.Message{Log: &message.Log{
		Level: "warning", Text: "refused a peer", Fields: map[string]string{"peer": "vm(3):7", "error": "denied"}, Dropped: 3,
	}}
	if got := overWire(t, want); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got.Log)
	}
	hostile := &message.Log{Level: strings.Repeat("\x1b", 100), Text: "\x1b[2J" + strings.Repeat("x", 5000) + "\n", Dropped: -1, Fields: map[string]string{}}
	for i := range 100 {
		hostile.Fields[fmt.Sprintf("%03d\r\x1b]0;%s", i, strings.Repeat("k", 500))] = "\u202e" + strings.Repeat("v", 5000)
	}
	got := overWire(t, message.Message{Log: hostile}).Log
	if len(got.Fields) != message.MaxLogFields || got.Dropped != 0 {
		t.Errorf("%d fields, %d dropped", len(got.Fields), got.Dropped)
	}
	texts := map[string]int{got.Level: 16, got.Text: 1024}
	for key, value := range got.Fields {
		if key[:3] >= "016" {
			t.Errorf("field %q is not of the first", key)
		}
		texts[key], texts[value] = 64, 1024
	}
	for text, limit := range texts {
		if len(text) > limit || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%d bytes, at most %d: %.80q", len(text), limit, text)
		}
	}
}

// TestOlderPeers: a peer that knows nothing of logs ignores them, and one that does
// not ask gets none.
func TestOlderPeers(t *testing.T) {
	got, err := message.Decode([]byte(`{"host":{"version":"1","host_reach":true}}`))
	if err != nil || got.Host.Log {
		t.Errorf("%+v, %v", got.Host, err)
	}
	data, err := message.Encode(message.Message{Host: &message.Host{Version: "1"}})
	if err != nil || strings.Contains(string(data), "log") {
		t.Errorf("%s, %v", data, err)
	}
}

func overWire(t *testing.T, m message.Message) message.Message {
	t.Helper()
	data, err := message.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := message.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
