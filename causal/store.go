package causal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/understudy-stream/understudy/determinant"
)

// Store has the logs of all tasks of a job that one worker knows: those of its own tasks and what it has learned of others'.
type Store struct {
	// Between, if set, is called between the captures of two logs by Delta. Tests let tasks go on there.
	Between func()

	logs []atomic.Pointer[Log]

	mu struct { // taken before any Log's
		sync.Mutex
		parts []part   // of the delta being merged
		seen  []uint64 // by task: the last merge that named it
		merge uint64
	}
}

// NewStore returns a store of empty logs for tasks 0 to tasks-1.
func NewStore(tasks int) *Store {
	s := &Store{logs: make([]atomic.Pointer[Log], tasks)}
	s.mu.seen = make([]uint64, tasks)
	for t := range s.logs {
		s.logs[t].Store(NewLog(0))
	}
	return s
}

// Log returns the log of task t. It panics if the job has no such task.
func (s *Store) Log(t determinant.TaskID) *Log { return s.logs[t].Load() }

// Reset replaces the log of task t by an empty one at base, not owned, and returns it. Nobody may be appending to the old
// one; readers that have it may finish.
func (s *Store) Reset(t determinant.TaskID, base determinant.LogOffset) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := NewLog(base)
	s.logs[t].Store(l)
	return l
}

// Ends returns the end of each log, by task. The caller owns the result.
func (s *Store) Ends() []determinant.LogOffset {
	ends := make([]determinant.LogOffset, len(s.logs))
	for t := range s.logs {
		ends[t] = s.logs[t].Load().End()
	}
	return ends
}

// Bytes returns how many bytes all logs hold.
func (s *Store) Bytes() int64 {
	var sum int64
	for t := range s.logs {
		sum += s.logs[t].Load().Bytes()
	}
	return sum
}

// Truncate drops of each log what is below its offset, by task: the offsets of a committed checkpoint.
func (s *Store) Truncate(offsets []determinant.LogOffset) {
	for t, to := range offsets {
		s.logs[t].Load().Truncate(to)
	}
}

// Cut drops of each log what is at or above its offset, by task, for a rollback. No task may be appending.
func (s *Store) Cut(offsets []determinant.LogOffset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, to := range offsets {
		s.logs[t].Load().Cut(to)
	}
}

// capturesOnStack is how many logs a Delta captures without allocating.
const capturesOnStack = 64

// Delta appends to dst what a peer has not been sent: the bytes of each log in order from cursor[t], indexed by task, to
// its end, and advances cursor. The order is DOWNSTREAM TASKS FIRST: all ends are captured in that order before anything
// is read, so that whoever merges the delta holds, with each determinant, those that it was chosen on. If nothing is new,
// dst comes back unchanged. A cursor beyond a log's end stays.
//
// A log that has been truncated above the cursor starts at its base with the covered flag.
func (s *Store) Delta(dst []byte, order []determinant.TaskID, cursor []determinant.LogOffset) []byte {
	var onStack [capturesOnStack]capture
	captures := onStack[:0]
	for i, t := range order {
		if s.Between != nil && i > 0 {
			s.Between()
		}
		captures = append(captures, s.logs[t].Load().capture())
	}
	size := 0
	for i, t := range order {
		if from := captures[i].newFrom(cursor[t]); from < captures[i].end {
			size += partHead + int(captures[i].end-from)
		}
	}
	if size == 0 {
		return dst
	}
	start := len(dst)
	dst = append(slices.Grow(dst, 1+size+deltaSum), deltaFormat)
	for i, t := range order {
		v, end := captures[i].view, captures[i].end
		from := captures[i].newFrom(cursor[t])
		if from >= end {
			continue
		}
		covered := from > uint64(cursor[t])
		dst = appendPart(dst, t, covered, v, from, end)
		cursor[t] = determinant.LogOffset(end)
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// Merge takes a delta whole or, with an error, not at all. The errors are ErrCorrupt and those of Log.Merge. The parts are
// applied from the last to the first, upstream tasks first: a Delta for somebody else that captures in the middle has no
// determinant without its causes. An empty delta is none. delta may be reused afterwards.
func (s *Store) Merge(delta []byte) error {
	body, err := deltaBody(delta)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.merge++
	parts := s.mu.parts[:0]
	for len(body) > 0 {
		var next part
		if next, body, err = nextPart(body); err != nil {
			return err
		}
		if uint64(next.task) >= uint64(len(s.logs)) || s.mu.seen[next.task] == s.mu.merge {
			return fmt.Errorf("%w: task %d unknown or named twice", ErrCorrupt, next.task)
		}
		s.mu.seen[next.task] = s.mu.merge
		parts = append(parts, next)
	}
	err = s.mergeParts(parts)
	clear(parts) // lets go of the delta
	s.mu.parts = parts[:0]
	return err
}

// mergeParts checks all parts and then applies them. s.mu is held; it is what makes holding several logs' locks safe.
func (s *Store) mergeParts(parts []part) error {
	for _, p := range parts {
		s.Log(p.task).mu.Lock()
	}
	err := s.checkParts(parts)
	for i := len(parts) - 1; i >= 0 && err == nil; i-- {
		s.Log(parts[i].task).apply(parts[i].from, parts[i].p)
	}
	for _, p := range parts {
		s.Log(p.task).mu.Unlock()
	}
	return err
}

func (s *Store) checkParts(parts []part) error {
	for _, p := range parts {
		if err := s.Log(p.task).check(p.from, p.p, p.covered); err != nil {
			return fmt.Errorf("%w (task %d)", err, p.task)
		}
	}
	return nil
}

// Copy is what one worker holds of a task's log.
type Copy struct {
	Task  determinant.TaskID
	Base  determinant.LogOffset
	Bytes []byte
}

// End returns the offset after the last byte.
func (c Copy) End() determinant.LogOffset { return c.Base + determinant.LogOffset(len(c.Bytes)) }

// Copy returns what the store holds of task t's log. The caller owns the bytes. Who copies several logs does it downstream
// tasks first.
func (s *Store) Copy(t determinant.TaskID) Copy {
	c := s.logs[t].Load().capture()
	base := c.view.base
	return Copy{Task: t, Base: determinant.LogOffset(base), Bytes: c.view.read(make([]byte, 0, c.end-base), base, c.end)}
}
