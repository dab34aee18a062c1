package bench

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/internal/outside"
)

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

const lookEvery = time.Millisecond

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
	roll
	read  func(line []byte) (n uint64, due int64, err error) // which one a line is, below expect unless it is strange, and when it was due
	tail  *outside.Tail
	parts map[string]*part // by file
	lines []visible
	stop  chan struct{}
	done  sync.WaitGroup
	err   error
}

// part is one output file.
type part struct {
	name  string
	grown []growth
}

func watch(dir string, expect uint64, read func([]byte) (uint64, int64, error)) *watcher {
	w := &watcher{
		roll: newRoll(expect), read: read, tail: outside.NewTail(filepath.Join(dir, "part-*.jsonl")), parts: map[string]*part{}, stop: make(chan struct{}),
	}
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
	for last := false; !last; {
		select {
		case <-ticker.C:
		case <-w.stop:
			last = true
		}
		if err := w.tail.Look(w.line); err != nil {
			w.err = fmt.Errorf("bench: %w", err)
			return
		}
	}
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

// line notes a line. Those that one look finds in a file are one growth.
func (w *watcher) line(name string, text []byte, seen time.Time) error {
	n, due, err := w.read(text)
	if err != nil {
		return err
	}
	p, at := w.parts[name], seen.UnixMicro()
	if p == nil {
		p = &part{name: name}
		w.parts[name] = p
	}
	if k := len(p.grown); k == 0 || p.grown[k-1].at != at {
		p.grown = append(p.grown, growth{at: at, due: math.MaxInt64})
	}
	g := &p.grown[len(p.grown)-1]
	g.lines++
	if !w.call(n) {
		return nil
	}
	g.due = min(g.due, due)
	w.lines = append(w.lines, visible{at: at, due: due})
	return nil
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
