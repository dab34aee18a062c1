package verify

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

const (
	mergeSlice    = 256 << 10    // most memory for reading or writing one run
	leastSlice    = 2 * maxFrame // least memory for reading one run
	maxMergeWidth = 512          // runs merged at once
)

func rank(key []byte) uint64 { return xxhash.Sum64(key) }

// merger merges runs, in several passes if there are too many for the memory.
type merger struct {
	ctx     context.Context
	byValue bool
	file    *runFile // holds the runs; replaced after each pass
	tempDir string
	buffers [][]byte // memory for reading
	out     []byte   // memory for writing
}

// merge hands the records of all runs to fn. Runs must be given in the order in which their records were added.
func (m *merger) merge(spans []span, fn func(Record) error) error {
	width := 0
	for _, b := range m.buffers {
		width += cap(b) / leastSlice
	}
	width = min(width, maxMergeWidth)
	for len(spans) > width {
		var err error
		if spans, err = m.pass(spans, width); err != nil {
			return err
		}
	}
	var last []byte
	started := false
	return m.mergeOnce(spans, func(r *runReader) error {
		first := !started || !bytes.Equal(r.key, last)
		if first {
			started = true
			last = append(last[:0], r.key...)
		}
		return fn(Record{r.key, r.value, first})
	})
}

// pass merges neighbouring runs, width at a time, into a new file.
func (m *merger) pass(spans []span, width int) ([]span, error) {
	file, err := newRunFile(m.tempDir)
	if err != nil {
		return nil, err
	}
	var merged []span
	for len(spans) > 0 {
		n := min(width, len(spans))
		w := runWriter{file: file, buf: m.out[:0], from: file.end}
		err := m.mergeOnce(spans[:n], func(r *runReader) error { return w.add(r.key, r.value) })
		if err == nil {
			var s span
			s, err = w.finish()
			merged = append(merged, s)
		}
		if err != nil {
			file.close()
			return nil, err
		}
		spans = spans[n:]
	}
	err = m.file.close()
	m.file = file
	return merged, err
}

// mergeOnce hands the records of at most width runs to fn in order.
func (m *merger) mergeOnce(spans []span, fn func(*runReader) error) error {
	t := loserTree{byValue: m.byValue, readers: m.readers(spans)}
	if err := t.start(); err != nil {
		return err
	}
	for n := 1; ; n++ {
		r := t.winner()
		if r == nil {
			return nil
		}
		if n%contextEvery == 0 && m.ctx.Err() != nil {
			return fmt.Errorf("verify: stopped while sorting: %w", context.Cause(m.ctx))
		}
		if err := fn(r); err != nil {
			return err
		}
		if err := t.advance(); err != nil {
			return err
		}
	}
}

// readers gives each run its share of the memory.
func (m *merger) readers(spans []span) []runReader {
	slice := mergeSlice
	for m.slices(slice) < len(spans) {
		slice = max(slice*3/4, leastSlice)
	}
	readers := make([]runReader, 0, len(spans))
	for _, b := range m.buffers {
		b = b[:cap(b)]
		for len(b) >= slice && len(readers) < len(spans) {
			readers = append(readers, runReader{file: m.file.f, span: spans[len(readers)], buf: b[:slice:slice]})
			b = b[slice:]
		}
	}
	return readers
}

func (m *merger) slices(size int) int {
	n := 0
	for _, b := range m.buffers {
		n += cap(b) / size
	}
	return n
}

// loserTree finds the least of several runs with one comparison per level (Knuth, volume 3, section 5.4.1).
type loserTree struct {
	byValue bool
	readers []runReader
	// losers[i] is the run that lost at node i; losers[0] is the overall winner. Node i has the children 2i and 2i+1; the
	// leaves, from len(readers) on, are the runs.
	losers []int
}

// start reads the first record of each run and plays all matches.
func (t *loserTree) start() error {
	for i := range t.readers {
		if err := t.readers[i].next(); err != nil {
			return err
		}
	}
	n := len(t.readers)
	t.losers = make([]int, max(n, 1))
	winners := make([]int, 2*n)
	for i := 2*n - 1; i >= 1; i-- {
		if i >= n {
			winners[i] = i - n
			continue
		}
		a, b := winners[2*i], winners[2*i+1]
		if t.less(b, a) {
			a, b = b, a
		}
		winners[i], t.losers[i] = a, b
	}
	if n > 0 {
		t.losers[0] = winners[1]
	}
	return nil
}

// winner returns the run with the least record, nil when all are over.
func (t *loserTree) winner() *runReader {
	if len(t.readers) == 0 || t.readers[t.losers[0]].over {
		return nil
	}
	return &t.readers[t.losers[0]]
}

// advance moves the winner on and plays its matches again.
func (t *loserTree) advance() error {
	w := t.losers[0]
	if err := t.readers[w].next(); err != nil {
		return err
	}
	for i := (w + len(t.readers)) / 2; i >= 1; i /= 2 {
		if t.less(t.losers[i], w) {
			t.losers[i], w = w, t.losers[i]
		}
	}
	t.losers[0] = w
	return nil
}

// less reports whether run a's record comes before run b's. Of equal records that of the earlier run does.
func (t *loserTree) less(a, b int) bool {
	x, y := &t.readers[a], &t.readers[b]
	if x.over || y.over {
		return !x.over && y.over
	}
	if x.rank != y.rank {
		return x.rank < y.rank
	}
	if c := compareRecords(x.key, y.key, x.value, y.value, t.byValue); c != 0 {
		return c < 0
	}
	return a < b
}
