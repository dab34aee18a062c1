package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

const (
	lookEvery  = time.Millisecond
	readAtMost = 1 << 20
)

// growth says that lines of a partition became visible.
type growth struct {
	at    int64 // microseconds
	due   int64 // of the line that was due first
	lines int
}

// visible is a line that was seen.
type visible struct {
	at, due int64 // microseconds
}

// watcher reads the output as it grows, as an outside reader does, and remembers when it saw what.
type watcher struct {
	dir    string
	expect uint64                                             // so many different lines
	read   func(line []byte) (n uint64, due int64, err error) // which one a line is, below expect unless it is strange, and when it was due
	parts  map[string]*part
	seen   []uint64 // a bit per record
	stop   chan struct{}
	done   sync.WaitGroup
	err    error

	lines      []visible
	duplicates uint64
	strange    uint64 // records that nobody sent
	count      uint64
}

// part is one output file.
type part struct {
	name   string
	offset int64
	rest   []byte
	grown  []growth
}

func watch(dir string, expect uint64, read func([]byte) (uint64, int64, error)) *watcher {
	w := &watcher{dir: dir, expect: expect, read: read, parts: map[string]*part{}, seen: make([]uint64, expect/64+1), stop: make(chan struct{})}
	w.done.Go(w.run)
	return w
}

// finish looks a last time and ends.
func (w *watcher) finish() error {
	close(w.stop)
	w.done.Wait()
	return w.err
}

func (w *watcher) run() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	buf := make([]byte, readAtMost)
	for last := false; !last; {
		select {
		case <-ticker.C:
		case <-w.stop:
			last = true
		}
		if err := w.look(buf); err != nil {
			w.err = err
			return
		}
	}
}

// look reads what has come since the last look. Files are opened by name each time: a fence may put a copy in a file's place.
func (w *watcher) look(buf []byte) error {
	names, err := filepath.Glob(filepath.Join(w.dir, "part-*.jsonl"))
	if err != nil {
		return err
	}
	for _, name := range names {
		p := w.parts[name]
		if p == nil {
			p = &part{name: filepath.Base(name)}
			w.parts[name] = p
		}
		if err := w.grow(name, p, buf); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) grow(name string, p *part, buf []byte) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	g := growth{at: time.Now().UnixMicro(), due: math.MaxInt64}
	for {
		n, err := f.ReadAt(buf, p.offset)
		p.offset += int64(n)
		if perr := w.take(p, buf[:n], &g); perr != nil {
			return perr
		}
		if errors.Is(err, io.EOF) || n < len(buf) {
			break
		}
		if err != nil {
			return err
		}
	}
	if g.lines > 0 {
		p.grown = append(p.grown, g)
	}
	return nil
}

func (w *watcher) take(p *part, text []byte, g *growth) error {
	if len(p.rest) > 0 {
		text = append(p.rest, text...)
	}
	for {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			break
		}
		if err := w.line(text[:end], g); err != nil {
			return fmt.Errorf("bench: %s: %w", p.name, err)
		}
		text = text[end+1:]
	}
	p.rest = append([]byte(nil), text...)
	return nil
}

// tickLine reads a line of three-maps: number and due time.
func tickLine(text []byte) (n uint64, due int64, err error) {
	number, dueText, ok := bytes.Cut(text, []byte(" "))
	n, err = strconv.ParseUint(string(number), 10, 64)
	due, derr := strconv.ParseInt(string(dueText), 10, 64)
	if err = errors.Join(err, derr); err != nil || !ok {
		return 0, 0, fmt.Errorf("line %q", text)
	}
	return n, due, nil
}

func (w *watcher) line(text []byte, g *growth) error {
	n, due, err := w.read(text)
	if err != nil {
		return err
	}
	g.lines++
	if n >= w.expect {
		w.strange++
		return nil
	}
	if bit := uint64(1) << (n % 64); w.seen[n/64]&bit != 0 {
		w.duplicates++
	} else {
		w.seen[n/64] |= bit
		w.count++
	}
	g.due = min(g.due, due)
	w.lines = append(w.lines, visible{at: g.at, due: due})
	return nil
}

// lost is how many records were never seen.
func (w *watcher) lost() uint64 {
	seen := 0
	for _, word := range w.seen {
		seen += bits.OnesCount64(word)
	}
	return w.expect - uint64(seen)
}

// gap finds the longest time between two growths of a partition that overlaps [from, until], and when it ended. It counts only from when
// something was due: nothing can be seen of a partition that has nothing to show.
func (p *part) gap(from, until int64) (longest, end int64) {
	i, _ := slices.BinarySearchFunc(p.grown, from, func(g growth, at int64) int { return int(g.at - at) })
	for i = max(i, 1); i < len(p.grown) && p.grown[i-1].at < until; i++ {
		g := &p.grown[i]
		if d := g.at - max(p.grown[i-1].at, g.due); d > longest {
			longest, end = d, g.at
		}
	}
	return longest, end
}
