package checkpoint

import (
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkOpenStore measures what a simulated worker pays for its store: a new one in memory, opened and closed.
func BenchmarkOpenStore(b *testing.B) {
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := OpenStore("w", StoreOptions{FS: vfs.NewMem(), Identity: "job"})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		fs := vfs.NewMem()
		b.ReportAllocs()
		for b.Loop() {
			s, err := OpenStore("w", StoreOptions{FS: fs, Identity: "job"})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("goroutines", func(b *testing.B) {
		before := runtime.NumGoroutine()
		s, err := OpenStore("w", StoreOptions{FS: vfs.NewMem(), Identity: "job"})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(runtime.NumGoroutine()-before), "goroutines")
		_ = s.Close()
		for b.Loop() {
		}
	})
}
