package wake

import (
	"errors"
	"testing"

	"github.com/vmbridge/vmbridge/guestside/pseudofs"
)

// format510 is of Linux 5.10, shortened to what is read.
const format510 = `name: inet_sock_set_state
ID: 1413
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:const void * skaddr;	offset:8;	size:8;	signed:0;
	field:int oldstate;	offset:16;	size:4;	signed:1;
	field:int newstate;	offset:20;	size:4;	signed:1;
	field:__u16 sport;	offset:24;	size:2;	signed:0;
	field:__u16 dport;	offset:26;	size:2;	signed:0;
	field:__u16 family;	offset:28;	size:2;	signed:0;
	field:__u16 protocol;	offset:30;	size:2;	signed:0;
	field:__u8 saddr[4];	offset:32;	size:4;	signed:0;
	field:__u8 daddr[4];	offset:36;	size:4;	signed:0;
	field:__u8 saddr_v6[16];	offset:40;	size:16;	signed:0;
	field:__u8 daddr_v6[16];	offset:56;	size:16;	signed:0;
`

func TestTraceFormat(t *testing.T) {
	want := traceFormat{oldState: 16, newState: 20, port: 24, family: 28, address: 40}
	if f, err := parseTraceFormat(format510); err != nil || f != want {
		t.Errorf("got %+v, %v, want %+v", f, err, want)
	}
	if _, err := parseTraceFormat("name: other\n"); !errors.Is(err, errTraceFormat) {
		t.Errorf("error %v, want errTraceFormat", err)
	}
	root, err := pseudofs.OpenRoot("tracefs")
	if err != nil {
		t.Skip("this kernel's format cannot be read:", err)
	}
	defer root.Close()
	text, err := pseudofs.ReadAt(root, traceEvent+"format")
	if err != nil {
		t.Skip("this kernel's format cannot be read:", err)
	}
	if _, err := parseTraceFormat(text); err != nil {
		t.Errorf("this kernel's format: %v", err)
	}
}

func FuzzTraceFormat(f *testing.F) {
	f.Add(format510)
	f.Add("\tfield:int oldstate;\toffset:-16;\tsize:4;\tsigned:1;\n")
	f.Add("\tfield:__u8 saddr_v6[16];\toffset:41;\tsize:16;\n")
	f.Fuzz(func(t *testing.T, text string) {
		format, err := parseTraceFormat(text)
		if err != nil {
			return
		}
		for _, offset := range []int16{format.oldState, format.newState, format.address} {
			if offset < 0 || offset%4 != 0 {
				t.Errorf("accepted %+v", format)
			}
		}
	})
}
