package operator

import (
	"encoding/binary"
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
