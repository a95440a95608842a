package listeners

import (
	"context"
	"testing"
)

// BenchmarkLook measures one look at 10,000 listeners of each protocol when
// nothing has changed. An idle tracker takes one of each every ten seconds.
func BenchmarkLook(b *testing.B) {
	tcp, udp := startProgram(b, nil), startProgram(b, nil)
	tcp.do("many t tcp %d %d", massCount, massTCPPort)
	udp.do("many u udp %d %d", massCount, massUDPPort)
	t, err := New(Config{Detect: Poll})
	if err != nil {
		b.Fatal(err)
	}
	defer t.Close()
	ctx := context.Background()
	for t.tcp().looks == 0 || t.udp().looks == 0 || len(t.udp().waiting) > 0 {
		for _, p := range t.protocols {
			t.look(ctx, p)
		}
	}
	for _, p := range t.protocols {
		b.Run(p.number.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t.look(ctx, p)
			}
		})
	}
}
