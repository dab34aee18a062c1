package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// tick is a record: its number, and when it was due, in microseconds since the Unix epoch.
type tick struct {
	N   uint64 `json:"n"`
	Due int64  `json:"due"`
	Sum uint64 `json:"sum"`
}

// ticks is a source of numbers at a pace. Part i of k has the numbers i, i+k, and so on.
type ticks struct {
	count uint64
	rate  uint64 // per second; 0: as fast as they are taken
	parts int
	start int64  // when the first is due, milliseconds since the Unix epoch; 0: a second after the job begins
	end   string // path of the ending; empty: there is none
}

// dueOf is when a record is due, in microseconds, if the first is at start, in milliseconds.
func dueOf(start int64, n, rate uint64) int64 { return start*1000 + int64(n*1_000_000/rate) }

// tickSplit is a part, and when its first number is due. It is written down once in a job's life.
type tickSplit struct {
	Part, Parts uint64
	Count, Rate uint64
	Start       int64 // microseconds
}

// Splits implements operator.Source.
func (s *ticks) Splits(context.Context) ([]string, error) {
	start := s.start * 1000
	if start == 0 {
		start = time.Now().Add(time.Second).UnixMicro()
	}
	var splits []string
	for i := range s.parts {
		text, err := json.Marshal(tickSplit{
			Part: uint64(i), Parts: uint64(s.parts), Count: s.count, Rate: s.rate, Start: start,
		})
		if err != nil {
			return nil, err
		}
		splits = append(splits, string(text))
	}
	return splits, nil
}

// Open implements operator.Source.
func (s *ticks) Open(_ context.Context, text string, offset uint64) (operator.Reader[tick], error) {
	r := &tickReader{next: offset, ready: make(chan struct{}, 1)}
	if err := json.Unmarshal([]byte(text), &r.split); err != nil {
		return nil, fmt.Errorf("bench: split %q: %w", text, err)
	}
	if s.end != "" {
		r.ending = newEnding(s.end)
	}
	return r, nil
}

type tickReader struct {
	split tickSplit
	next  uint64 // of this part
	now   int64  // the last look at the clock, microseconds
	ready chan struct{}
	timer *time.Timer

	ending *ending // nil: the split's count is the only one
}

// Next implements operator.Reader.
func (r *tickReader) Next() (tick, uint64, error) {
	n := r.split.Part + r.next*r.split.Parts
	if n >= r.split.Count {
		return tick{}, 0, io.EOF
	}
	due := r.split.Start
	if r.split.Rate > 0 {
		due += int64(n * 1_000_000 / r.split.Rate)
		if due > r.now {
			r.now = time.Now().UnixMicro()
		}
		if due > r.now {
			r.wake(time.Duration(due-r.now) * time.Microsecond)
			return tick{}, 0, operator.ErrNotReady
		}
	}
	if r.ending != nil {
		if over, err := r.ending.over(n, due); err != nil {
			return tick{}, 0, err
		} else if over {
			return tick{}, 0, io.EOF
		}
	}
	r.next++
	return tick{N: n, Due: due}, r.next, nil
}

// wake says that there is more after some time, and not before a millisecond has gone: who looks for every single record does
// nothing else.
func (r *tickReader) wake(after time.Duration) {
	after = max(after, time.Millisecond)
	if r.timer != nil {
		r.timer.Reset(after)
		return
	}
	r.timer = time.AfterFunc(after, func() {
		select {
		case r.ready <- struct{}{}:
		default:
		}
	})
}

// Ready implements operator.Reader.
func (r *tickReader) Ready() <-chan struct{} { return r.ready }

// Close implements operator.Reader.
func (r *tickReader) Close() error {
	if r.timer != nil {
		r.timer.Stop()
	}
	return nil
}
