package determinant_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	. "github.com/understudy-stream/understudy/determinant"
)

// golden is one log with every form of every kind. The format is frozen: other bytes would make old logs unreadable.
var golden = []struct {
	hex string
	d   Determinant
}{
	{"0c01", Determinant{Kind: KindMark, Epoch: 1}},
	{"0107", Determinant{Kind: KindInput, N: 7}},
	{"21ff01", Determinant{Kind: KindInput, Channel: 2, N: 255}},
	{"f10001", Determinant{Kind: KindInput, Channel: 15, N: 1}},
	{"f18f0201", Determinant{Kind: KindInput, Channel: 286, N: 1}},
	{"1264", Determinant{Kind: KindSource, N: 100, Offset: 100}},
	{"0264b960", Determinant{Kind: KindSource, N: 100, Offset: 12445}},
	{"f20a64", Determinant{Kind: KindSource, Split: 17, N: 100, Offset: 100}},
	{"e20a6401", Determinant{Kind: KindSource, Split: 17, N: 100, Offset: 101}},
	{"f38102", Determinant{Kind: KindTimers, Time: 272}},
	{"e3", Determinant{Kind: KindTimers, Time: 286}},
	{"07", Determinant{Kind: KindTime, Time: 286}},
	{"f7cdcfeab6b733", Determinant{Kind: KindTime, Time: 1767225600250}},
	{"040100", Determinant{Kind: KindCheckpoint, Epoch: 1, Depth: Full}},
	{"14ac0203", Determinant{Kind: KindCheckpoint, Epoch: 300, Mode: AtLeastOnce, Depth: 2}},
	{"250201", Determinant{Kind: KindSkipCheckpoint, Epoch: 2, Mode: GlobalRollback}},
	{"46080706050403020100", Determinant{Kind: KindAsync, Pending: 2, Hash: 0x0102030405060708}},
	{"f60008070605040302010178", Determinant{Kind: KindAsync, Failed: true, Pending: 7, Hash: 0x0102030405060708, Bytes: []byte("x")}},
	{"08ff00000000000000", Determinant{Kind: KindRandom, Seed: 255}},
	{"090100000000000000026f6b", Determinant{Kind: KindCall, Hash: 1, Bytes: []byte("ok")}},
	{"19010000000000000000", Determinant{Kind: KindCall, Hash: 1, Failed: true}},
	{"0a0161", Determinant{Kind: KindSplit, Bytes: []byte("a")}},
	{"3a", Determinant{Kind: KindSplit, Split: 1, Removed: true}},
	{"faf8ffffff0f", Determinant{Kind: KindSplit, Split: NoSplit, Removed: true}},
	{"2bac02", Determinant{Kind: KindSkip, Channel: 1, Seq: 300}},
	{"fb0207", Determinant{Kind: KindSkip, Channel: 9, Seq: 7, Failed: true}},
	{"0c02", Determinant{Kind: KindMark, Epoch: 2}},
	{"03", Determinant{Kind: KindTimers, Time: 0}},
	{"0264b960", Determinant{Kind: KindSource, N: 100, Offset: 12345}},
}

func TestFormatIsFrozen(t *testing.T) {
	var enc Encoder
	var dec Decoder
	for _, g := range golden {
		if got := hex.EncodeToString(enc.Append(nil, &g.d)); got != g.hex {
			t.Errorf("%v encodes to %s, frozen as %s", &g.d, got, g.hex)
		}
		src, _ := hex.DecodeString(g.hex)
		var d Determinant
		if n, err := dec.Next(src, &d); err != nil || n != len(src) || !reflect.DeepEqual(d, g.d) {
			t.Errorf("%s decodes to %v (%d bytes, %v), want %v", g.hex, &d, n, err, &g.d)
		}
	}
}

// choices generates determinants of every kind, with numbers that are mostly small and sometimes extreme.
func choices() *rapid.Generator[Determinant] {
	number := rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64())
	index := rapid.OneOf(rapid.Uint32Range(0, 40), rapid.Uint32())
	moment := rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Int64())
	result := rapid.Custom(func(t *rapid.T) []byte {
		if p := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes"); len(p) > 0 {
			return p
		}
		return nil
	})
	return rapid.Custom(func(t *rapid.T) Determinant {
		d := Determinant{Kind: Kind(rapid.IntRange(int(KindInput), int(KindMark)).Draw(t, "kind"))}
		switch d.Kind {
		case KindInput:
			d.Channel, d.N = index.Draw(t, "channel"), number.Draw(t, "n")
		case KindSource:
			d.Split, d.N, d.Offset = index.Draw(t, "split"), number.Draw(t, "n"), number.Draw(t, "offset")
		case KindTimers, KindTime:
			d.Time = moment.Draw(t, "time")
		case KindCheckpoint, KindSkipCheckpoint:
			d.Epoch = Epoch(number.Draw(t, "epoch"))
			d.Mode = Mode(rapid.IntRange(0, int(None)).Draw(t, "mode"))
			d.Depth = Depth(rapid.Uint16().Draw(t, "depth"))
		case KindAsync, KindCall:
			if d.Kind == KindAsync {
				d.Pending = index.Draw(t, "pending")
			}
			d.Hash, d.Failed, d.Bytes = rapid.Uint64().Draw(t, "hash"), rapid.Bool().Draw(t, "failed"), result.Draw(t, "result")
		case KindRandom:
			d.Seed = rapid.Uint64().Draw(t, "seed")
		case KindSplit:
			d.Split, d.Removed = index.Draw(t, "split"), rapid.Bool().Draw(t, "removed")
			if !d.Removed {
				d.Bytes = result.Draw(t, "identity")
			}
		case KindSkip:
			d.Channel, d.Seq, d.Failed = index.Draw(t, "channel"), Seq(number.Draw(t, "seq")), rapid.Bool().Draw(t, "failed")
		case KindMark:
			d.Epoch = Epoch(number.Draw(t, "epoch"))
		}
		return d
	})
}

func TestDecodingGivesWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(choices()).Draw(t, "log")
		var enc Encoder
		var log []byte
		var ends []int
		for i := range want {
			log = enc.Append(log, &want[i])
			ends = append(ends, len(log))
		}
		var dec Decoder
		pos := 0
		for i := range want {
			for short := pos; short < ends[i]; short += 1 + (ends[i]-pos)/8 {
				var d Determinant
				if _, err := dec.Next(log[pos:short], &d); !errors.Is(err, ErrShort) {
					t.Fatalf("%d of %d bytes of %v: %v", short-pos, ends[i]-pos, &want[i], err)
				}
			}
			var d Determinant
			n, err := dec.Next(log[pos:], &d)
			if err != nil || pos+n != ends[i] || !reflect.DeepEqual(d, want[i]) {
				t.Fatalf("%v came back as %v (%d bytes, %v)", &want[i], &d, n, err)
			}
			pos += n
		}
	})
}

// A log may be cut on either side of a mark: what follows reads the same with a fresh decoder.
func TestMarkRestartsDeltaCoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SliceOf(choices()).Draw(t, "before")
		after := rapid.SliceOf(choices()).Draw(t, "after")
		var used, fresh, mid Encoder
		for i := range before {
			used.Append(nil, &before[i])
		}
		mark := Determinant{Kind: KindMark, Epoch: 9}
		a, b, c := used.Append(nil, &mark), fresh.Append(nil, &mark), []byte(nil)
		markLength := len(a)
		for i := range after {
			a, b, c = used.Append(a, &after[i]), fresh.Append(b, &after[i]), mid.Append(c, &after[i])
		}
		if !bytes.Equal(a, b) || !bytes.Equal(a[markLength:], c) {
			t.Fatalf("after a mark:\nused  % x\nfresh % x\nmid   % x", a, b, c)
		}
	})
}

func TestInputIsShort(t *testing.T) {
	var enc Encoder
	for channel := range uint32(15) {
		for _, n := range []uint64{1, 127, 128, 1<<14 - 1} {
			if p := enc.Append(nil, &Determinant{Kind: KindInput, Channel: channel, N: n}); len(p) > 3 {
				t.Errorf("input of %d elements of channel %d takes %d bytes", n, channel, len(p))
			}
		}
	}
}

func TestDecoderRefuses(t *testing.T) {
	for _, c := range []struct{ what, hex string }{
		{"no kind", "00"},
		{"an unknown kind", "0d"},
		{"a superfluous varint byte", "018700"},
		{"a zero in two bytes", "018000"},
		{"a varint over 64 bits", "01ffffffffffffffffff02"},
		{"an endless varint", "01ffffffffffffffffffff"},
		{"a channel over 32 bits", "f1ffffffff0f01"},
		{"a time difference over 64 bits", "f3ffffffffffffffffff01"},
		{"a dense source without its flag", "026464"},
		{"an unknown mode", "440100"},
		{"a depth over 16 bits", "0401808004"},
		{"flags of a call", "290100000000000000026f6b"},
		{"flags of a seed", "18ff00000000000000"},
		{"flags of a mark", "1c01"},
		{"a result over the bound", "090100000000000000" + "81808020"},
	} {
		src, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		var dec Decoder
		var d Determinant
		if _, err := dec.Next(src, &d); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, %v", c.what, &d, err)
		}
	}
}

func TestDecoderIsAsBeforeAfterAnError(t *testing.T) {
	var enc Encoder
	log := enc.Append(nil, &Determinant{Kind: KindTime, Time: 1 << 40})
	log = enc.Append(log, &Determinant{Kind: KindSource, Split: 3, N: 1, Offset: 1 << 30})
	var dec Decoder
	var d Determinant
	n, err := dec.Next(log, &d)
	if err != nil {
		t.Fatal(err)
	}
	before := dec
	for short := n; short < len(log); short++ {
		if _, err := dec.Next(log[n:short], &d); !errors.Is(err, ErrShort) || dec != before {
			t.Fatalf("%d bytes: %v, decoder changed: %v", short-n, err, dec != before)
		}
	}
}

func TestEncoderRefusesWhatTheFormatCannotExpress(t *testing.T) {
	for _, d := range []Determinant{
		{},
		{Kind: KindMark + 1},
		{Kind: KindCheckpoint, Mode: None + 1},
		{Kind: KindCall, Bytes: make([]byte, MaxBytes+1)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v was encoded", d.Kind)
				}
			}()
			var enc Encoder
			enc.Append(nil, &d)
		}()
	}
}

func TestCodecDoesNotAllocate(t *testing.T) {
	var enc Encoder
	var dec Decoder
	var d Determinant
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		for i := range golden {
			buf = enc.Append(buf[:0], &golden[i].d)
			if _, err := dec.Next(buf, &d); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzDecode reads any bytes as a log: no panic, and what can be read encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	var all []byte
	for _, g := range golden {
		p, _ := hex.DecodeString(g.hex)
		f.Add(p)
		all = append(all, p...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, log []byte) {
		var dec Decoder
		var enc Encoder
		var d Determinant
		var again []byte
		pos := 0
		for pos < len(log) {
			n, err := dec.Next(log[pos:], &d)
			if err != nil {
				if !errors.Is(err, ErrShort) && !errors.Is(err, ErrCorrupt) {
					t.Fatalf("neither short nor corrupt: %v", err)
				}
				break
			}
			_ = d.String()
			again = enc.Append(again, &d)
			pos += n
		}
		if !bytes.Equal(again, log[:pos]) {
			t.Fatalf("log\n% x\nencodes to\n% x", log[:pos], again)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name string
		d    Determinant
	}{
		{"input", Determinant{Kind: KindInput, Channel: 3, N: 200}},
		{"source", Determinant{Kind: KindSource, Split: 2, N: 500, Offset: 123456}},
		{"time", Determinant{Kind: KindTime, Time: math.MaxInt32}},
		{"call100B", Determinant{Kind: KindCall, Hash: 1 << 60, Bytes: make([]byte, 100)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var enc Encoder
			buf := make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				c.d.Offset += 1000
				c.d.Time += 20
				buf = enc.Append(buf[:0], &c.d)
			}
		})
	}
}

func BenchmarkNext(b *testing.B) {
	var enc Encoder
	var log []byte
	for i := range 1000 {
		log = enc.Append(log, &Determinant{Kind: KindInput, Channel: uint32(i % 8), N: uint64(i)})
		log = enc.Append(log, &Determinant{Kind: KindTime, Time: int64(i * 20)})
	}
	var dec Decoder
	var d Determinant
	pos := 0
	b.ReportAllocs()
	for b.Loop() {
		if pos == len(log) {
			dec, pos = Decoder{}, 0
		}
		n, err := dec.Next(log[pos:], &d)
		if err != nil {
			b.Fatal(err)
		}
		pos += n
	}
}
