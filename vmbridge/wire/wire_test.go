package wire

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func payload(t *testing.T, frame []byte, want Type) []byte {
	t.Helper()
	h, err := ParseHeader(frame)
	if err != nil {
		t.Fatal(err)
	}
	if h.Type != want || HeaderSize+h.Length != len(frame) {
		t.Fatalf("header %+v of a %s frame of %d bytes", h, want, len(frame))
	}
	return frame[HeaderSize:]
}

func TestFramesSurviveARoundTrip(t *testing.T) {
	hello := Hello{MinVersion: 1, MaxVersion: 7, Features: 9, Auth: AuthKey, Nonce: [32]byte{1}, Session: [16]byte{2},
		Index: 1, Count: 2, Epoch: 77, InitialCredit: 65536}
	if got, err := ParseHello(payload(t, AppendHello(nil, hello), TypeHello)); err != nil || got != hello {
		t.Errorf("hello: %+v, %v", got, err)
	}
	challenge := Challenge{Version: 1, Features: 3, Auth: AuthKey, Nonce: [32]byte{5}, InitialCredit: 1}
	if got, err := ParseChallenge(payload(t, AppendChallenge(nil, challenge), TypeChallenge)); err != nil || got != challenge {
		t.Errorf("challenge: %+v, %v", got, err)
	}
	welcome := Welcome{Proof: Proof{8}, Epoch: 1 << 60, Name: "guest"}
	if got, err := ParseWelcome(payload(t, AppendWelcome(nil, welcome), TypeWelcome)); err != nil || got != welcome {
		t.Errorf("welcome: %+v, %v", got, err)
	}
	goodbye := Goodbye{Code: CodeWrongKey, Reason: "because"}
	if got, err := ParseGoodbye(payload(t, AppendGoodbye(nil, goodbye), TypeGoodbye)); err != nil || got != goodbye {
		t.Errorf("goodbye: %+v, %v", got, err)
	}
	for _, open := range []Open{
		{TCP, netip.MustParseAddrPort("192.0.2.1:5"), netip.MustParseAddrPort("127.0.0.1:80")},
		{UDP, netip.MustParseAddrPort("[2001:db8::1]:65535"), netip.MustParseAddrPort("[::1]:53")},
		{UDP, netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.1:1")},
	} {
		if got, err := ParseOpen(payload(t, AppendOpen(nil, 3, open), TypeOpen)); err != nil || !reflect.DeepEqual(got, open) {
			t.Errorf("open: %+v, %v", got, err)
		}
	}
	if got, err := ParseCredit(payload(t, AppendCredit(nil, 3, 1<<31), TypeCredit)); err != nil || got != 1<<31 {
		t.Errorf("credit: %d, %v", got, err)
	}
	if got, err := ParseCode(payload(t, AppendCode(nil, TypeReset, 3, CodeDenied), TypeReset)); err != nil || got != CodeDenied {
		t.Errorf("reset: %s, %v", got, err)
	}
}

func TestMappedAndZonedAddressesAreNormalised(t *testing.T) {
	open := Open{TCP, netip.MustParseAddrPort("[::ffff:192.0.2.1]:5"), netip.MustParseAddrPort("[fe80::1%eth0]:80")}
	got, err := ParseOpen(payload(t, AppendOpen(nil, 1, open), TypeOpen))
	if err != nil || got.Source.String() != "192.0.2.1:5" || got.Destination.String() != "[fe80::1]:80" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestHeaderLimits(t *testing.T) {
	for _, test := range []struct {
		h  Header
		ok bool
	}{
		{Header{TypeData, MaxData, 1}, true},
		{Header{TypeData, MaxData + 1, 1}, false},
		{Header{TypeDatagram, MaxDatagram, 1}, true},
		{Header{TypeDatagram, MaxDatagram + 1, 1}, false},
		{Header{TypeControl, MaxControl, 0}, true},
		{Header{TypeControl, MaxControl + 1, 0}, false},
		{Header{TypePing, maxSmall + 1, 0}, false},
		{Header{0x7f, 0, 0}, false},                      // unknown, mandatory
		{Header{0x7f | Optional, 0, 0}, true},            // unknown, optional
		{Header{0x7f | Optional, MaxData + 1, 0}, false}, // and too long to skip
	} {
		var b [HeaderSize]byte
		PutHeader(b[:], test.h)
		got, err := ParseHeader(b[:])
		if test.ok && (err != nil || got != test.h) || !test.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %+v, %v", test.h, got, err)
		}
	}
}

// A proof must not hold for another key, role, nonce, session or epoch.
func TestProofsAreBoundToTheirHandshake(t *testing.T) {
	hello := payload(t, AppendHello(nil, Hello{Count: 1}), TypeHello)
	challenge := payload(t, AppendChallenge(nil, Challenge{}), TypeChallenge)
	key := bytes.Repeat([]byte{1}, 32)
	proof := GuestProof(key, hello, challenge, 5)
	if !proof.Equal(GuestProof(key, hello, challenge, 5)) {
		t.Error("the same handshake gives another proof")
	}
	other := bytes.Clone(hello)
	other[53]++ // the session
	for what, p := range map[string]Proof{
		"key":     GuestProof(bytes.Repeat([]byte{2}, 32), hello, challenge, 5),
		"role":    HostProof(key, hello, challenge),
		"session": GuestProof(key, other, challenge, 5),
		"epoch":   GuestProof(key, hello, challenge, 6),
		"order":   GuestProof(key, challenge, hello, 5),
	} {
		if proof.Equal(p) {
			t.Errorf("a proof holds for another %s", what)
		}
	}
}

func TestLongTextsAreCut(t *testing.T) {
	g, err := ParseGoodbye(payload(t, AppendGoodbye(nil, Goodbye{CodeOther, strings.Repeat("x", 5000)}), TypeGoodbye))
	if err != nil || len(g.Reason) != maxReason {
		t.Errorf("%d bytes, %v", len(g.Reason), err)
	}
	w, err := ParseWelcome(payload(t, AppendWelcome(nil, Welcome{Name: strings.Repeat("x", 5000)}), TypeWelcome))
	if err != nil || len(w.Name) != maxName {
		t.Errorf("%d bytes, %v", len(w.Name), err)
	}
}

// FuzzPayloads feeds every decoder: it must not panic, and what it accepts must
// encode to something that it accepts as the same (H2).
func FuzzPayloads(f *testing.F) {
	f.Add(AppendHello(nil, Hello{Count: 1, InitialCredit: 1}))
	f.Add(AppendChallenge(nil, Challenge{Version: 1}))
	f.Add(AppendProof(nil, Proof{1}))
	f.Add(AppendWelcome(nil, Welcome{Name: "x"}))
	f.Add(AppendGoodbye(nil, Goodbye{CodeShutdown, "bye"}))
	f.Add(AppendOpen(nil, 1, Open{TCP, netip.MustParseAddrPort("1.2.3.4:5"), netip.MustParseAddrPort("[::1]:6")}))
	f.Add(AppendCredit(nil, 1, 5))
	f.Add(AppendCode(nil, TypeReset, 1, CodeIdle))
	f.Add([]byte{0xff, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, err := ParseHeader(frame)
		if err != nil || HeaderSize+h.Length > len(frame) {
			return
		}
		p := frame[HeaderSize : HeaderSize+h.Length]
		again := func(err error, encoded []byte) {
			if err != nil {
				return
			}
			if _, err := ParseHeader(encoded); err != nil {
				t.Errorf("encoded what cannot be parsed: %v", err)
			}
		}
		switch h.Type {
		case TypeHello:
			v, err := ParseHello(p)
			again(err, AppendHello(nil, v))
		case TypeChallenge:
			v, err := ParseChallenge(p)
			again(err, AppendChallenge(nil, v))
		case TypeProof:
			v, err := ParseProof(p)
			again(err, AppendProof(nil, v))
		case TypeWelcome:
			v, err := ParseWelcome(p)
			again(err, AppendWelcome(nil, v))
		case TypeGoodbye:
			v, err := ParseGoodbye(p)
			again(err, AppendGoodbye(nil, v))
		case TypeOpen:
			v, err := ParseOpen(p)
			if err != nil {
				return
			}
			w, err := ParseOpen(AppendOpen(nil, h.Flow, v)[HeaderSize:])
			if err != nil || w != v {
				t.Errorf("%+v became %+v, %v", v, w, err)
			}
		case TypeCredit:
			v, err := ParseCredit(p)
			again(err, AppendCredit(nil, h.Flow, v))
		case TypeReset, TypeRefused:
			v, err := ParseCode(p)
			again(err, AppendCode(nil, h.Type, h.Flow, v))
		}
	})
}
