package http

import (
	"fmt"
	"sync"
	"time"
)

// reading is what a server knows of the job that reads a log.
type reading struct {
	mu struct {
		sync.Mutex
		position uint64
		polled   bool // since the last tick
		past     []uint64
	}
}

// progress notes that the job's reader needs nothing below a line now. It may go back, to the offset of a checkpoint.
func (s *Server) progress(name string, log *lineLog, own bool, line uint64) {
	log.mu.RLock()
	position := log.positionOf(line)
	log.mu.RUnlock()
	value, _ := s.reads.LoadOrStore(name, &reading{})
	r := value.(*reading)
	r.mu.Lock()
	r.mu.position, r.mu.polled = position, true
	r.mu.Unlock()
	if own {
		s.owner.progress(position)
	}
}

// tick gives the position that the job left behind so many ticks ago, and has not gone back to since. A tick without a read does not
// count: a job that does not run makes nothing old.
//
// The engine does not tell a source that a checkpoint was committed. What it does tell is where it reads again after a failure.
func (r *reading) tick(ticks int) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.polled {
		r.mu.polled = false
		for n := len(r.mu.past); n > 0 && r.mu.past[n-1] > r.mu.position; n = len(r.mu.past) {
			r.mu.past = r.mu.past[:n-1]
		}
		r.mu.past = append(r.mu.past, r.mu.position)
	}
	if n := len(r.mu.past) - ticks - 1; n > 0 {
		r.mu.past = append(r.mu.past[:0], r.mu.past[n:]...)
	}
	if len(r.mu.past) <= ticks {
		return 0
	}
	return r.mu.past[0]
}

// settleTicks is how many ticks make Settle.
const settleTicks = 60

// upkeep removes what the job no longer needs.
func (s *Server) upkeep() {
	ticker := time.NewTicker(max(time.Millisecond, s.options.Settle/settleTicks))
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-ticker.C:
			if err := s.tidy(now); err != nil && s.ctx.Err() == nil && s.options.Failed != nil {
				s.options.Failed(err)
			}
		}
	}
}

// tidy drops segments of this server's log that the job has left behind for Settle, when they are older than Retain or make the log longer
// than RetainBytes. Copies follow their owners' logs.
func (s *Server) tidy(now time.Time) error {
	value, ok := s.reads.Load(s.options.Name)
	if !ok {
		return nil
	}
	settled := value.(*reading).tick(settleTicks)
	if s.owner.keeper != nil {
		settled = min(settled, s.owner.standing().copied)
	}
	oldest := now.Add(-s.options.Retain).UnixMilli()
	err := s.owner.log.drop(settled, func(last int64, bytes uint64) bool {
		return last < oldest || bytes > uint64(s.options.RetainBytes)
	})
	if err != nil {
		return fmt.Errorf("http: removing what was read: %w", err)
	}
	return nil
}
