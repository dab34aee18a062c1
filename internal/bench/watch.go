package bench

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/understudy-stream/understudy/internal/outside"
)

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// lookEvery is how often the output is looked at: gaps that matter are far longer.
const lookEvery = 2 * time.Millisecond

// growth says that lines of a partition became visible.
type growth struct {
	at  int64 // microseconds
	due int64 // of the line that was due first
}

// watcher reads the output as it grows, as an outside reader does, and remembers when it saw what. It computes little for each line and
// keeps none, since the job that is measured has the same cores.
type watcher struct {
	roll
	tail    *outside.Tail
	parts   map[string]*part // by file
	bySeen  *lateness        // of the lines that were seen in a step
	byDue   *lateness        // of the lines that were due in a step
	ticking bool             // lines are ticks; otherwise rows, which resolve tells apart
	rows    [][]seenRow      // in chunks
	stop    chan struct{}
	done    sync.WaitGroup
	err     error
}

// seenRow is a row whose number and due time are found out when the job is over.
type seenRow struct {
	part *part
	at   int64 // microseconds
	hash uint64
}

const rowsPerChunk = 4096

// part is one output file.
type part struct {
	name  string
	grown []growth
}

func newWatcher(s *Spec) *watcher {
	zero := s.Start * 1000
	return &watcher{
		tail: outside.NewTail(filepath.Join(s.output(), "part-*.jsonl")), parts: map[string]*part{}, stop: make(chan struct{}),
		bySeen: newLateness(rollingStep, zero), byDue: newLateness(curveStep, zero), ticking: s.Query == "",
	}
}

// watch follows the output of a job. If its lines are ticks, there are as many as the job has records at most.
func watch(s *Spec) *watcher {
	w := newWatcher(s)
	if w.ticking {
		w.roll = newRoll(s.Records)
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
	defer w.tail.Close() //nolint:errcheck // files that were only read
	for last := false; !last; {
		select {
		case <-ticker.C:
		case <-w.stop:
			last = true
		}
		if err := w.tail.Text(w.text); err != nil {
			w.err = fmt.Errorf("bench: %w", err)
			return
		}
	}
}

// text notes lines that one look found in a file.
func (w *watcher) text(name string, text []byte, seen time.Time) error {
	p, at := w.parts[name], seen.UnixMicro()
	if p == nil {
		p = &part{name: name}
		w.parts[name] = p
	}
	for len(text) > 0 {
		if !w.ticking {
			line, rest, _ := bytes.Cut(text, []byte("\n"))
			w.row(seenRow{part: p, at: at, hash: xxhash.Sum64(line)})
			text = rest
			continue
		}
		n, due, length := tickLine(text)
		if length == 0 {
			return fmt.Errorf("line %.100q", text)
		}
		if err := w.note(p, at, n, due); err != nil {
			return err
		}
		text = text[length:]
	}
	return nil
}

// tickLine reads a line of three-maps: number and due time. Its length, the end included, is 0 if it is none.
func tickLine(text []byte) (n uint64, due int64, length int) {
	n, i := digits(text)
	if i == 0 || i == len(text) || text[i] != ' ' {
		return 0, 0, 0
	}
	d, j := digits(text[i+1:])
	if length = i + 1 + j; j == 0 || length == len(text) || text[length] != '\n' {
		return 0, 0, 0
	}
	return n, int64(d), length + 1
}

// mostDigits are those of the numbers that a signed word holds, whatever they are.
const mostDigits = 18

// digits reads the number that text begins with, and says how many digits it has; 0 if it has none or too many.
func digits(text []byte) (v uint64, length int) {
	for ; length < len(text) && text[length]-'0' <= 9; length++ {
		v = v*10 + uint64(text[length]-'0')
	}
	if length > mostDigits {
		return 0, 0
	}
	return v, length
}

// row keeps a row.
func (w *watcher) row(r seenRow) {
	if k := len(w.rows); k == 0 || len(w.rows[k-1]) == rowsPerChunk {
		w.rows = append(w.rows, make([]seenRow, 0, rowsPerChunk))
	}
	last := &w.rows[len(w.rows)-1]
	*last = append(*last, r)
}

// resolve notes the rows that were kept, of which g knows what they are.
func (w *watcher) resolve(g *golden) error {
	w.roll = newRoll(uint64(len(g.rows)))
	for _, chunk := range w.rows {
		for _, r := range chunk {
			n, due := g.find(r.hash)
			if err := w.note(r.part, r.at, n, due); err != nil {
				return fmt.Errorf("bench: %s: %w", r.part.name, err)
			}
		}
	}
	w.rows = nil
	return nil
}

// note notes a line. Those that one look finds in a file are one growth.
func (w *watcher) note(p *part, at int64, n uint64, due int64) error {
	if k := len(p.grown); k == 0 || p.grown[k-1].at != at {
		p.grown = append(p.grown, growth{at: at, due: math.MaxInt64})
	}
	if !w.call(n) {
		return nil
	}
	g := &p.grown[len(p.grown)-1]
	g.due = min(g.due, due)
	if err := w.bySeen.add(at, at-due); err != nil {
		return err
	}
	return w.byDue.add(due, at-due)
}

// gap finds the longest time between two growths of a partition that overlaps [from, until], without what it lasts after that. It counts only from
// when something was due: nothing can be seen of a partition that has nothing to show.
func (p *part) gap(from, until int64) (longest int64) {
	for i := max(p.from(from), 1); i < len(p.grown) && p.grown[i-1].at < until; i++ {
		g := &p.grown[i]
		longest = max(longest, min(g.at, until)-max(p.grown[i-1].at, g.due))
	}
	return longest
}

// from is the first growth at that time or later.
func (p *part) from(at int64) int {
	i, _ := slices.BinarySearchFunc(p.grown, at, func(g growth, at int64) int { return cmp.Compare(g.at, at) })
	return i
}

// after is when the first growth was at that time or later; 0 if there is none.
func (p *part) after(at int64) int64 {
	if i := p.from(at); i < len(p.grown) {
		return p.grown[i].at
	}
	return 0
}
