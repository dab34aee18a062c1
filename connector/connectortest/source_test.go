package connectortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// queue is an input in memory that keeps every rule, but for those that a test switches off. An offset is ten times the number of
// records before it.
type queue struct {
	off     map[string]bool
	ends    bool
	mu      sync.Mutex
	splits  [][]string
	readers []*queueReader // open ones
	shared  int            // of a mutant: where all readers are
	lists   int            // how many times the splits were listed
	first   int            // splits that are there from the start
}

const offsetStep = 10

func newQueue(ends bool, off ...string) *queue {
	q := &queue{off: map[string]bool{}, ends: ends}
	for _, o := range off {
		q.off[o] = true
	}
	for s := range 3 {
		var split []string
		for n := range 4 * s {
			split = append(split, fmt.Sprintf("%d/%d", s, n))
		}
		q.splits = append(q.splits, split)
	}
	q.first = len(q.splits)
	return q
}

func (q *queue) input() SourceInput[string] {
	in := SourceInput[string]{
		Source:     func() operator.Source[string] { return &queueSource{q: q} },
		Records:    slices.Concat(q.splits...),
		Grow:       q.grow,
		BadSplits:  []string{"9"},
		BadOffsets: []uint64{offsetStep},
	}
	if !q.ends {
		in.Add = q.add
	}
	return in
}

// grow adds two splits.
func (q *queue) grow() (added [][]string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range 2 {
		s := len(q.splits)
		split := []string{fmt.Sprintf("%d/0", s), fmt.Sprintf("%d/1", s)}
		q.splits, added = append(q.splits, split), append(added, split)
	}
	return added
}

func (q *queue) add() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := &q.splits[q.first-1]
	v := fmt.Sprintf("added %d", len(*last))
	*last = append(*last, v)
	for _, r := range q.readers {
		if !q.off["a wake-up comes"] {
			r.signal()
		}
	}
	return v
}

type queueSource struct{ q *queue }

func (s *queueSource) InputOf(split string) string {
	if s.q.off["an input has one name"] {
		return fmt.Sprintf("%s of %p", split, s)
	}
	return "queue " + split
}

func (s *queueSource) Splits(ctx context.Context) ([]string, error) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	names := []string{"0", "1", "2"}
	if s.q.lists++; s.q.off["splits have one order"] && s.q.lists%2 == 0 {
		slices.Reverse(names)
	}
	if s.q.off["splits differ"] {
		names = append(names, "2")
	}
	return names, ctx.Err()
}

func (s *queueSource) DiscoveryInterval() time.Duration {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if s.q.lists++; s.q.off["an interval is the same"] {
		return time.Duration(s.q.lists)
	}
	return time.Second
}

func (s *queueSource) Discover(ctx context.Context, known []string) (splits []string, all bool, err error) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if ctx.Err() != nil {
		if q.off["a cancelled listing says why"] {
			return nil, false, errors.New("cancelled")
		}
		return nil, false, ctx.Err()
	}
	n := len(q.splits)
	if q.off["new splits are found"] {
		n = q.first
	}
	for i := range n {
		name := strconv.Itoa(i)
		if q.off["a known split keeps its name"] && i == 0 && len(q.splits[q.first-1]) > 8 {
			name = "00"
		}
		if q.off["a new split has one name"] && i >= q.first && !slices.Contains(known, name) {
			name = fmt.Sprintf("%d by %p", i, s)
		}
		splits = append(splits, name)
	}
	if q.off["only what is there is found"] && n > q.first {
		splits = append(splits, strconv.Itoa(n))
	}
	if q.off["a listing returns"] {
		return nil, false, errors.New("not now")
	}
	return splits, false, nil
}

func (s *queueSource) Open(ctx context.Context, split string, offset uint64) (operator.Reader[string], error) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	i := -1
	for n := range q.splits {
		if split == strconv.Itoa(n) || q.off["a new split has one name"] && strings.HasPrefix(split, fmt.Sprintf("%d by ", n)) {
			i = n
		}
	}
	if i < 0 && !q.off["a bad split is refused"] || i >= q.first && q.off["a new split can be read"] {
		return nil, errors.New("no such split")
	}
	i = max(i, 0)
	at := int(offset / offsetStep)
	if offset > uint64(len(q.splits[i])*offsetStep) || offset%offsetStep != 0 {
		if !q.off["a bad offset is refused"] {
			return nil, errors.New("no such offset")
		}
		at = len(q.splits[i])
	}
	if ctx.Err() != nil && q.off["a cancelled call says why"] {
		return nil, errors.New("cancelled")
	}
	if offset > 0 && q.off["an offset is behind its record"] {
		at--
	}
	q.shared = at
	r := &queueReader{q: q, split: i, at: at, ready: make(chan struct{}, 1)}
	if q.off["a wake-up is kept"] {
		r.ready = make(chan struct{}) // lost on whoever is not waiting just then
	}
	q.readers = append(q.readers, r)
	return r, ctx.Err()
}

type queueReader struct {
	q         *queue
	split, at int
	ready     chan struct{}
	reads     int
}

// signal says that a record was added. A value that nobody has taken yet is enough.
func (r *queueReader) signal() {
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

func (r *queueReader) Ready() <-chan struct{} {
	switch off := r.q.off; {
	case off["a reader that waits has Ready"], r.q.ends:
		return nil
	case off["Ready is one channel"]:
		return make(chan struct{})
	}
	return r.ready
}

func (r *queueReader) Next() (string, uint64, error) {
	q, off := r.q, r.q.off
	q.mu.Lock()
	defer q.mu.Unlock()
	at := &r.at
	if off["readers are apart"] {
		at = &q.shared
	}
	split := q.splits[r.split]
	if n := len(split); off["a new split is whole"] && r.split >= q.first {
		split = split[:1]
	} else if off["the last record comes"] && q.ends && n > 0 {
		split = split[:n-1]
	}
	if *at >= len(split) {
		r.reads++
		switch {
		case !q.ends && off["an endless split has no end"]:
			return "", 0, io.EOF
		case !q.ends && off["ErrNotReady comes as it is"]:
			return "", 0, fmt.Errorf("queue: %w", operator.ErrNotReady)
		case !q.ends, off["an end comes"]:
			return "", 0, operator.ErrNotReady
		case off["the end comes again"] && r.reads > 1:
			return "", 0, errors.New("closed")
		}
		return "", 0, io.EOF
	}
	v := split[*at]
	if *at++; off["records are the same again"] {
		v += fmt.Sprintf(" of %p", r)
	}
	if off["offsets differ"] && *at > 1 {
		return v, uint64(*at-1) * offsetStep, nil
	}
	if off["records keep their order"] && *at < len(split) {
		v = split[*at]
	}
	return v, uint64(*at) * offsetStep, nil
}

func (r *queueReader) Close() error {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	r.q.readers = slices.DeleteFunc(r.q.readers, func(o *queueReader) bool { return o == r })
	r.q.shared = 0
	return nil
}

func TestQueueConforms(t *testing.T) {
	for _, ends := range []bool{true, false} {
		t.Run(fmt.Sprintf("ends=%v", ends), func(t *testing.T) {
			Source(t, func(testing.TB) SourceInput[string] { return newQueue(ends).input() })
		})
	}
}

// TestSourceMutantsAreCaught switches off one rule at a time: some case must fail.
func TestSourceMutantsAreCaught(t *testing.T) {
	for _, rule := range []string{
		"splits have one order",
		"splits differ",
		"an input has one name",
		"a bad split is refused",
		"a bad offset is refused",
		"a cancelled call says why",
		"an offset is behind its record",
		"offsets differ",
		"readers are apart",
		"records are the same again",
		"records keep their order",
		"the last record comes",
		"an end comes",
		"the end comes again",
		"an endless split has no end",
		"ErrNotReady comes as it is",
		"a reader that waits has Ready",
		"Ready is one channel",
		"a wake-up comes",
		"a wake-up is kept",
		"an interval is the same",
		"new splits are found",
		"a known split keeps its name",
		"a new split has one name",
		"only what is there is found",
		"a new split can be read",
		"a new split is whole",
		"a listing returns",
		"a cancelled listing says why",
	} {
		t.Run(rule, func(t *testing.T) {
			caught := 0
			for _, ends := range []bool{true, false} {
				for _, c := range sourceCases[string]() {
					in := newQueue(ends, rule).input()
					if c.grows && in.Add == nil {
						continue
					}
					r := record(t, func(t testing.TB) {
						c.run(&sourceRun[string]{t: t, in: in, patience: 100 * time.Millisecond})
					})
					if r.message != "" {
						caught++
						t.Logf("ends=%v, %s: %s", ends, c.name, r.message)
					}
				}
			}
			if caught == 0 {
				t.Errorf("no case notices that the rule is broken: %s", rule)
			}
		})
	}
}
