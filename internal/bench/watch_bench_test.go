package bench

import (
	"testing"
	"time"
)

// BenchmarkWatcherText is what the watcher computes for each line of three-maps, reading the file apart.
func BenchmarkWatcherText(b *testing.B) {
	const lines = 10_000
	s := &Spec{Records: 1 << 32, Rate: 300_000, Start: time.Now().UnixMilli()}
	w := newWatcher(s)
	w.roll = newRoll(s.Records)
	at := time.UnixMicro(dueOf(s.Start, lines, s.Rate) + 5000)
	var text []byte
	for n := range uint64(lines) {
		text, _ = lineCodec{}.Append(text, tick{N: n, Due: dueOf(s.Start, n, s.Rate)})
		text = append(text, '\n')
	}
	b.ReportAllocs()
	began := processCPU()
	for b.Loop() {
		if err := w.text("part-00000.jsonl", text, at); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((processCPU()-began).Nanoseconds())/float64(b.N*lines), "cpu-ns/line")
}
