package operator

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
)

// BenchmarkEntries is what a checkpoint goes through of 50,000 small entries: of a table, and of timers that are all of one time.
func BenchmarkEntries(b *testing.B) {
	values, set := newTable[int64]("t", defaultCodec[int64]().codec), newTimerTable("timers")
	for i := range uint64(50_000) {
		k := keyBytes{bytes: binary.AppendUvarint(nil, i*7919%50_000+1_000_000)}
		k.sum()
		values.set(&k, int64(i))
		set.queue.Register(9999, string(k.bytes), "")
	}
	count := func(_, _ []byte, _ bool) error { return nil }
	for _, f := range []Frozen{values.Freeze(), set.Freeze()} {
		b.Run(f.Table(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Entries(count); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkColdEntries is an image of one entry in a hundred of a state that is in nobody's cache.
func BenchmarkColdEntries(b *testing.B) {
	const entries, size = 1_000_000, 1 << 10
	t := newTable("t", Codec[[]byte](bytesCodec{}))
	change := func(i uint64) {
		k := keyBytes{bytes: binary.AppendUvarint(nil, i)}
		k.sum()
		t.set(&k, make([]byte, size))
	}
	for i := range uint64(entries) {
		change(i)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 3 { // new values come to where old ones were
		for range entries / 4 {
			change(rng.Uint64N(entries))
		}
		t.Freeze()
		runtime.GC()
	}
	flush := make([]byte, 256<<20)
	for range entries / 100 {
		change(rng.Uint64N(entries))
	}
	some := t.Freeze()
	image := make([]byte, 0, 2*size*entries/100)
	for b.Loop() {
		b.StopTimer()
		for i := 0; i < len(flush); i += 64 { // takes the place of all that is in the caches
			flush[i]++
		}
		image = image[:0]
		b.StartTimer()
		if err := some.Entries(func(_, value []byte, _ bool) error {
			image = append(image, value...)
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(entries/100), "ns/entry")
}
