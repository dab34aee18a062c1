package checkpoint

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-stream/understudy/determinant"
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
	b.Run("disk", func(b *testing.B) {
		dir := b.TempDir()
		for b.Loop() {
			s, err := OpenStore(dir, StoreOptions{Identity: "job"})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPutCommit measures one checkpoint of a store with several tasks.
func BenchmarkPutCommit(b *testing.B) {
	for _, fs := range []string{"memory", "disk"} {
		for _, entries := range []int{10, 10_000} {
			b.Run(fmt.Sprintf("%s/tasks=4/entries=%d/value=100", fs, entries), func(b *testing.B) {
				o := StoreOptions{}
				if fs == "memory" {
					o.FS = vfs.NewMem()
				}
				s, err := OpenStore(b.TempDir(), o)
				if err != nil {
					b.Fatal(err)
				}
				items := make([]item, entries)
				for i := range items {
					items[i] = item{key: fmt.Sprintf("key-%08d", i), value: fmt.Sprintf("%0100d", i)}
				}
				for e := determinant.Epoch(1); b.Loop(); e++ {
					var lives []Life
					for task := range determinant.TaskID(4) {
						image, err := Encode(Meta{Task: task, Incarnation: 1, Epoch: e, Base: e - 1}, false, frozen(table{"t", items}))
						if err == nil {
							err = s.Put(image)
						}
						if err != nil {
							b.Fatal(err)
						}
						lives = append(lives, Life{task, 1})
					}
					if err := s.Commit(e, lives); err != nil {
						b.Fatal(err)
					}
				}
				_ = s.Close()
			})
		}
	}
}

// BenchmarkRestore measures how long a task's state takes to come back, after a tenth of it was replaced again and again.
func BenchmarkRestore(b *testing.B) {
	const entries, rounds = 128 << 10, 20
	s, err := OpenStore(b.TempDir(), StoreOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	value := strings.Repeat("0123456789abcdef", 64)
	for e := determinant.Epoch(1); e <= 1+rounds; e++ {
		var items []item
		for i := range entries {
			if e == 1 || (i*7919+int(e))%10 == 0 {
				items = append(items, item{key: fmt.Sprintf("key-%08d", i), value: value})
			}
		}
		image, err := Encode(Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1}, false, frozen(table{"t", items}))
		if err = errors.Join(err, s.Put(image), s.Commit(e, []Life{{1, 1}})); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(entries * 1024)
	for b.Loop() {
		var meta Meta
		n := 0
		if err := s.Restore(1, 1+rounds, &meta, func(_ string, _, v []byte) error { n += len(v); return nil }); err != nil {
			b.Fatal(err)
		}
		if n != entries*1024 {
			b.Fatal(n)
		}
	}
}
