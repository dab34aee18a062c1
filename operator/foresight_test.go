package operator

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// moody is a codec of numbers that fails on some, and panics on others. Codecs that read an empty payload exist, too.
type moody struct{}

func (moody) Append(dst []byte, v uint64) ([]byte, error) {
	if v == 12 {
		return nil, errors.New("12 cannot be encoded")
	}
	return append(dst, byte(v)), nil
}

func (moody) Decode(src []byte) (uint64, error) {
	switch {
	case len(src) == 0:
		return 0, nil
	case src[0] == 10:
		return 0, errors.New("10 cannot be read")
	case src[0] == 11:
		panic("11")
	}
	return uint64(src[0]), nil
}

// moodyKey panics on some.
func moodyKey(v uint64) uint64 {
	if v == 13 {
		panic("13")
	}
	return v % 14
}

// summing is a Processor and a CoProcessor.
type summing struct{ sum *Value[uint64] }

func (s *summing) Open(st *States) error { s.sum = NewValue[uint64](st, "sum"); return nil }
func (s *summing) Process(ctx KeyedContext[uint64], v uint64, emit func(uint64)) error {
	n, _ := s.sum.Get()
	s.sum.Set(n + v)
	ctx.RegisterEventTimer(time.UnixMilli(int64(v)), "")
	if v == 9 {
		return errors.New("9 fails")
	}
	emit((n + v) % 10)
	return nil
}
func (s *summing) Left(ctx KeyedContext[uint64], v uint64, emit func(uint64)) error {
	return s.Process(ctx, v, emit)
}
func (s *summing) Right(ctx KeyedContext[uint64], v uint64, emit func(uint64)) error {
	emit(v % 7)
	return s.Process(ctx, v, emit)
}
func (s *summing) Timer(ctx KeyedContext[uint64], t Timer, emit func(uint64)) error {
	n, _ := s.sum.Get()
	emit((ctx.Key() + n) % 10)
	return nil
}

// foresighted are operators with state by keys.
var foresighted = map[string]func(j *Job){
	"process": func(j *Job) {
		To(Process(moodyStream(j, "a"), "op", func() Processor[uint64, uint64, uint64] { return &summing{} }, WithCodec[uint64](moody{})), "out", nowhere{})
	},
	"reduce": func(j *Job) {
		To(Reduce(moodyStream(j, "a"), "op", func(a, v uint64) (uint64, error) { return (a + v) % 10, nil }), "out", nowhere{})
	},
	"join": func(j *Job) {
		To(CoProcess(moodyStream(j, "a"), moodyStream(j, "b"), "op", func() CoProcessor[uint64, uint64, uint64, uint64] { return &summing{} },
			WithCodec[uint64](moody{})), "out", nowhere{})
	},
	"window": func(j *Job) {
		s, _ := Window(moodyStream(j, "a"), "op", Tumbling(4*time.Millisecond), Aggregator[uint64, uint64, int, uint64]{
			Add: func(n int, _ uint64) (int, error) { return n + 1, nil },
			Emit: func(_ Context, k uint64, _ WindowInfo, n int, emit func(uint64)) error {
				emit((k + uint64(n)) % 10)
				return nil
			},
		}, WithCodec[uint64](moody{}))
		To(s, "out", nowhere{})
	},
}

// nothing is a source that is never read.
type nothing struct{}

func (nothing) Splits(context.Context) ([]string, error) { return nil, nil }
func (nothing) Open(context.Context, string, uint64) (Reader[uint64], error) {
	return nil, errors.New("it is not read")
}

func moodyStream(j *Job, name string) KeyedStream[uint64, uint64] {
	return KeyBy(From[uint64](j, name, nothing{}, WithCodec[uint64](moody{})), moodyKey, WithCodec[uint64](moody{}))
}

// A chain that is told what comes next, and is told wrong things too, does what one does that is told nothing: what it emits, how it fails, and
// the state that it has.
func TestForesightChangesNothing(t *testing.T) {
	for name, build := range foresighted {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				chains := make([]*harness, 2)
				for i := range chains {
					j := NewJob("job")
					build(j)
					chains[i] = newHarness(t, j, "op", 2)
				}
				told, untold := chains[0], chains[1]
				inputs := 1
				if name == "join" {
					inputs = 2
				}
				payload := rapid.SliceOfN(rapid.ByteRange(0, 13), 0, 1)
				before, beforeIn := [][]byte{{1}}, 0 // what was said before
				for range rapid.IntRange(1, 8).Draw(t, "groups") {
					in := rapid.IntRange(0, inputs-1).Draw(t, "input")
					next := rapid.SliceOfN(payload, 1, foresight).Draw(t, "records")
					require.Equal(t, foresight, told.chain.Foresight(in, true))
					told.chain.Foresee(in, next)
					for i, p := range next {
						to := in
						switch rapid.IntRange(0, 5).Draw(t, "other") {
						case 0:
							p = payload.Draw(t, "it is") // another record than was said
						case 1:
							to = rapid.IntRange(0, inputs-1).Draw(t, "to") // the one that was said, on another input
						case 2:
							p, to = rapid.SampledFrom(before).Draw(t, "old"), beforeIn
						}
						hasTime := rapid.IntRange(0, 3).Draw(t, "time") > 0
						requireSame(t, told, untold, func(h *harness) error { return h.chain.Record(to, p, int64(i), hasTime) })
					}
					before, beforeIn = next, in
					if rapid.Bool().Draw(t, "forget") {
						told.chain.Foresee(in, nil)
					}
					wm := rapid.Int64Range(0, 20).Draw(t, "watermark")
					requireSame(t, told, untold, func(h *harness) error { return h.chain.Watermark(wm) })
				}
				told.freeze()
				untold.freeze()
				require.Equal(t, untold.state, told.state)
			})
		})
	}
}

// requireSame does something with both chains, which a panic of a user's code may end.
func requireSame(t *rapid.T, a, b *harness, do func(*harness) error) {
	var ended [2]string
	for i, h := range []*harness{a, b} {
		if err := do(h); err != nil {
			ended[i] = err.Error()
			h.chain.Rewind()
		}
	}
	require.Equal(t, ended[1], ended[0])
	require.Equal(t, b.take(), a.take())
}

// counted counts what it decodes and encodes.
type counted struct {
	moody
	decoded, encoded *int
}

func (c counted) Append(dst []byte, v uint64) ([]byte, error) {
	*c.encoded++
	return c.moody.Append(dst, v)
}

func (c counted) Decode(src []byte) (uint64, error) {
	*c.decoded++
	return c.moody.Decode(src)
}

// What was foreseen is neither decoded again, nor is its key worked out again.
func TestForesightIsUsed(t *testing.T) {
	var values, keys counted
	for _, c := range []*counted{&values, &keys} {
		c.decoded, c.encoded = new(int), new(int)
	}
	j := NewJob("job")
	s := KeyBy(From[uint64](j, "a", nothing{}, WithCodec[uint64](values)), moodyKey, WithCodec[uint64](keys))
	To(Reduce(s, "op", func(a, v uint64) (uint64, error) { return (a + v) % 10, nil }), "out", nowhere{})
	h := newHarness(t, j, "op", 2)
	next := [][]byte{{1}, {2}, {3}, {1}}
	h.chain.Foresee(0, next)
	require.Equal(t, []int{4, 4}, []int{*values.decoded, *keys.encoded})
	for _, p := range next[:3] {
		require.NoError(t, h.chain.Record(0, p, 0, false))
	}
	require.Equal(t, []int{4, 4}, []int{*values.decoded, *keys.encoded})
	h.chain.Foresee(0, nil)
	require.NoError(t, h.chain.Record(0, next[3], 0, false))
	require.Equal(t, []int{5, 5}, []int{*values.decoded, *keys.encoded}, "what was taken back is decoded when it comes")
	require.Zero(t, h.chain.Foresight(0, false), "so little state is in the caches anyway")
}

// BenchmarkForesight is a record of a Processor with one piece of state and random keys, one record after the other, and known beforehand as a task makes
// them known.
func BenchmarkForesight(b *testing.B) {
	for _, keys := range []uint64{64, 1024, 16 << 10, 1 << 20} {
		for _, known := range []bool{false, true} {
			b.Run(fmt.Sprintf("keys=%d/known=%v", keys, known), func(b *testing.B) {
				j := NewJob("speed")
				s := From[bid](j, "bids", &endless{}, WithCodec(bidCodec{}))
				ks := KeyBy(s, func(b bid) uint64 { return b.Auction })
				To(Process(ks, "state", func() Processor[uint64, bid, bid] { return &lastBid{} }, WithCodec(bidCodec{})), "out", nowhere{})
				h := quiet(newHarness(b, j, "state", 4))
				var payloads [foresight][]byte
				random := uint64(1)
				step := func() {
					for i := range payloads {
						random = random*0x9e3779b97f4a7c15 + 1
						at, _ := bits.Mul64(random, keys)
						payloads[i], _ = bidCodec{}.Append(payloads[i][:0], bid{at, random, random})
					}
					if known {
						h.chain.Foresee(0, payloads[:])
					}
					for _, p := range payloads {
						must(h.chain.Record(0, p, 0, true))
					}
					h.chain.Foresee(0, nil)
				}
				for range keys / 4 {
					step()
				}
				for _, table := range h.chain.Tables() {
					table.Freeze()
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := 0; i < b.N; i += foresight {
					step()
				}
			})
		}
	}
}
