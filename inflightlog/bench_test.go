package inflightlog

import (
	"math"
	"runtime"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
)

const benchRecord = 150 // bytes of payload

// withHeap gives the process the heap of a worker at work, so that what is measured is not a collection every 4 MB.
func withHeap(b *testing.B) {
	ballast := make([]byte, 64<<20)
	b.Cleanup(func() { runtime.KeepAlive(ballast) })
}

// BenchmarkRecord is the appender's whole cost of a record: encode, append, commit, its share of sealing and of a consumer
// that takes batches by reference.
func BenchmarkRecord(b *testing.B) {
	for name, retain := range map[string]bool{"retain": true, "drop": false} {
		b.Run(name, func(b *testing.B) {
			withHeap(b)
			var l *Log
			l = NewLog(Origin, Options{Retain: retain, OnSeal: func(_ *Log, s *Batch) {
				if _, err := l.Next(-1); err != nil {
					b.Fatal(err)
				}
				l.Grant(s.End.Next)
			}})
			if err := l.Subscribe(Origin); err != nil {
				b.Fatal(err)
			}
			payload := make([]byte, benchRecord)
			b.ReportAllocs()
			b.SetBytes(benchRecord)
			epoch := determinant.Epoch(1)
			for i := 0; b.Loop(); i++ {
				l.Record(int64(i), true, payload)
				l.Commit()
				if i%100_000 == 99_999 {
					l.Control(Element{Kind: Barrier, Epoch: epoch})
					l.Truncate(epoch)
					epoch++
				}
			}
		})
	}
}

// BenchmarkDecode is the consumer's cost of a record.
func BenchmarkDecode(b *testing.B) {
	var batch *Batch
	l := NewLog(Origin, Options{Retain: true, OnSeal: func(_ *Log, s *Batch) { batch = s }})
	for batch == nil {
		l.Record(1, true, make([]byte, benchRecord))
		l.Commit()
	}
	b.SetBytes(benchRecord)
	at := 0
	var e Element
	for b.Loop() {
		if at == len(batch.Payload) {
			at = 0
		}
		n, err := Decode(batch.Payload[at:], &e)
		if err != nil {
			b.Fatal(err)
		}
		at += n
	}
}

// BenchmarkSpill writes every batch to disk; BenchmarkReplay reads them back. Both are per batch of 32 KiB.
func BenchmarkSpill(b *testing.B) {
	files, err := OSFiles(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	l := NewLog(Origin, Options{Retain: true, Budget: NewBudget(0, math.MaxInt64, 0, files)})
	payload := make([]byte, 32<<10)
	b.SetBytes(int64(len(payload)))
	epoch := determinant.Epoch(1)
	for i := 0; b.Loop(); i++ {
		l.Record(0, false, payload)
		l.Commit()
		if i%1000 == 999 {
			l.Control(Element{Kind: Barrier, Epoch: epoch})
			l.Truncate(epoch)
			epoch++
		}
	}
	b.StopTimer()
	_ = l.Close()
}

func BenchmarkReplay(b *testing.B) {
	files, err := OSFiles(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	budget := NewBudget(0, math.MaxInt64, 0, files)
	l := NewLog(Origin, Options{Retain: true, Budget: budget})
	payload := make([]byte, 32<<10)
	for range 1000 {
		l.Record(0, false, payload)
		l.Commit()
	}
	budget.memory = 1 << 20
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		batch, err := l.Next(-1)
		if err != nil {
			b.Fatal(err)
		}
		if batch == nil {
			l.Adopt()
		}
	}
	b.StopTimer()
	_ = l.Close()
}

// BenchmarkPlainAppend is the least that appending can cost: the same bytes into the same buffers, and nothing else.
func BenchmarkPlainAppend(b *testing.B) {
	withHeap(b)
	var chunk []byte
	payload := make([]byte, benchRecord)
	b.ReportAllocs()
	b.SetBytes(benchRecord)
	for b.Loop() {
		if len(chunk) >= 32<<10 || chunk == nil {
			chunk = make([]byte, 0, 36<<10)
		}
		chunk = append(chunk, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		chunk = append(chunk, payload...)
	}
}

// BenchmarkAppend is Record alone, into memory that is in the cache.
func BenchmarkAppend(b *testing.B) {
	l := NewLog(Origin, Options{Retain: true})
	payload := make([]byte, benchRecord)
	b.ReportAllocs()
	b.SetBytes(benchRecord)
	for i := 0; b.Loop(); i++ {
		l.Record(int64(i), true, payload)
		if i%128 == 127 {
			l.Rewind()
		}
	}
}
