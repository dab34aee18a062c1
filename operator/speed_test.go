package operator

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// bid has a codec written by hand, so that only the engine's own work is measured.
type bid struct{ Auction, Price, Time uint64 }

type bidCodec struct{}

func (bidCodec) Append(dst []byte, v bid) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint64(dst, v.Auction)
	dst = binary.LittleEndian.AppendUint64(dst, v.Price)
	return binary.LittleEndian.AppendUint64(dst, v.Time), nil
}

func (bidCodec) Decode(src []byte) (bid, error) {
	if len(src) != 24 {
		return bid{}, errors.New("bid: want 24 bytes")
	}
	return bid{binary.LittleEndian.Uint64(src), binary.LittleEndian.Uint64(src[8:]), binary.LittleEndian.Uint64(src[16:])}, nil
}

// endless is a source of one split without an end.
type endless struct{ at uint64 }

func (e *endless) Splits(context.Context) ([]string, error) { return []string{"0"}, nil }
func (e *endless) Open(_ context.Context, _ string, offset uint64) (Reader[bid], error) {
	return &endless{offset}, nil
}
func (e *endless) Next() (bid, uint64, error) {
	e.at++
	return bid{e.at % 64, e.at, e.at}, e.at, nil
}
func (e *endless) Ready() <-chan struct{} { return nil }
func (e *endless) Close() error           { return nil }

func euro(_ Context, b bid) (bid, error) {
	b.Price = b.Price * 908 / 1000
	return b, nil
}

const stepRecords = 100

// step is a step of stepRecords records in one of the measured chains.
func speedSteps(t testing.TB) map[string]func() {
	source := func(build func(s Stream[bid])) func() {
		j := NewJob("speed")
		build(From[bid](j, "bids", &endless{}, WithCodec(bidCodec{})))
		h := quiet(newHarness(t.(tester), j, "bids", 4))
		require.NoError(t, h.chain.Source().Add("0"))
		src := h.chain.Source()
		return func() {
			split, n, offset, _, err := src.Poll(stepRecords)
			must(err)
			must(src.Begin(split, n, offset))
			for range n {
				must(emitOne(src))
			}
			must(h.chain.StepEnd())
		}
	}
	keyed := func(name string, build func(ks KeyedStream[uint64, bid]) Stream[bid]) func() {
		j := NewJob("speed")
		s := From[bid](j, "bids", &endless{}, WithCodec(bidCodec{}))
		To(build(KeyBy(s, func(b bid) uint64 { return b.Auction })), "out", nowhere{})
		h := quiet(newHarness(t.(tester), j, name, 4))
		at := uint64(0)
		var payload []byte
		return func() {
			for range stepRecords {
				at++
				payload, _ = bidCodec{}.Append(payload[:0], bid{at % 64, at, at})
				must(h.chain.Record(0, payload, int64(at), true))
			}
			must(h.chain.StepEnd())
		}
	}
	return map[string]func(){
		"map to sink": source(func(s Stream[bid]) { To(Map(s, "euro", euro, WithCodec(bidCodec{})), "out", nowhere{}) }),
		"flatmap, filter to hash edge": source(func(s Stream[bid]) {
			s = FlatMap(s, "each", func(_ Context, b bid, emit func(bid)) error { emit(b); return nil }, WithCodec(bidCodec{}))
			s = Filter(s, "some", func(_ Context, b bid) (bool, error) { return b.Auction%2 == 0, nil })
			s = Timestamps(s, "time", func(b bid) time.Time { return time.UnixMilli(int64(b.Time)) }, time.Second)
			k := KeyBy(s, func(b bid) uint64 { return b.Auction })
			To(Reduce(k, "max", func(a, b bid) (bid, error) { return b, nil }), "out", nowhere{}, WithCodec(bidCodec{}))
		}),
		"reduce": keyed("max", func(ks KeyedStream[uint64, bid]) Stream[bid] {
			return Reduce(ks, "max", func(a, b bid) (bid, error) { return b, nil })
		}),
		"process": keyed("state", func(ks KeyedStream[uint64, bid]) Stream[bid] {
			return Process(ks, "state", func() Processor[uint64, bid, bid] { return &lastBid{} }, WithCodec(bidCodec{}))
		}),
		"window": keyed("win", func(ks KeyedStream[uint64, bid]) Stream[bid] {
			s, _ := Window(ks, "win", Tumbling(1000*time.Hour), Aggregator[uint64, bid, int, bid]{
				Add:  func(n int, _ bid) (int, error) { return n + 1, nil },
				Emit: func(Context, uint64, WindowInfo, int, func(bid)) error { return nil },
			}, WithCodec(bidCodec{}))
			return s
		}),
	}
}

// must is require.NoError without its cost.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func quiet(h *harness) *harness {
	for _, o := range append(h.rt.outputs, h.rt.external) {
		if o != nil {
			o.quiet = true
		}
	}
	return h
}

type lastBid struct{ last *Value[bid] }

func (l *lastBid) Open(s *States) error {
	l.last = NewValue(s, "last", Codec[bid](bidCodec{}))
	return nil
}

func (l *lastBid) Process(_ KeyedContext[uint64], b bid, emit func(bid)) error {
	last, _ := l.last.Get()
	b.Price = max(b.Price, last.Price)
	l.last.Set(b)
	emit(b)
	return nil
}

func (l *lastBid) Timer(KeyedContext[uint64], Timer, func(bid)) error { return nil }

func TestNoAllocationPerRecord(t *testing.T) {
	for name, step := range speedSteps(t) {
		for range 10 {
			step()
		}
		require.Zero(t, testing.AllocsPerRun(100, step), "%s: per %d records", name, stepRecords)
	}
}

func BenchmarkChain(b *testing.B) {
	for name, step := range speedSteps(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; i < b.N; i += stepRecords {
				step()
			}
		})
	}
}

func BenchmarkMsgPack(b *testing.B) {
	c, err := MsgPack[bid]()
	require.NoError(b, err)
	buf, err := c.Append(nil, bid{1000, 100000, 1700000000000})
	require.NoError(b, err)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			buf, _ = c.Append(buf[:0], bid{1000, 100000, 1700000000000})
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			_, _ = c.Decode(buf)
		}
	})
}
