package http

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
)

// lineLog is a log of requests in segment files: one's own, or the copy of another's. Positions and line numbers count from the log's
// beginning, for ever.
//
// Invariants: end is synced. readable <= end, and never falls.
type lineLog struct {
	dir     string
	options logOptions
	writing sync.Mutex // held while the files change at their end; taken before mu
	mu      struct {
		sync.RWMutex
		segments []*segment // at least one; in order, without gaps
		end      uint64     // position after the last record
		lines    uint64     // in all records
		readable uint64     // what readers may be given ends here
		ended    bool       // the last record is the end
		terms    []termStart
		keys     keyIndex
		changed  chan struct{} // closed when readable rises
		broken   error         // a write failed: what is on disk is not known any more
	}
}

type logOptions struct {
	SegmentBytes int64
	MaxKeys      int
}

// termStart says where the records of a term begin.
type termStart struct {
	Term, Start uint64
}

// openLog opens the log in a directory, which is made if there is none, and repairs its end.
func openLog(dir string, o logOptions) (*lineLog, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	l := &lineLog{dir: dir, options: o}
	l.mu.changed = make(chan struct{})
	l.mu.keys = newKeyIndex(o.MaxKeys)
	names, err := segmentsIn(dir)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		if err := l.load(name, i == len(names)-1); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	if len(names) == 0 {
		s, err := createSegment(dir, segmentHead{})
		if err != nil {
			return nil, err
		}
		l.mu.segments = []*segment{s}
	}
	return l, nil
}

// load opens the next segment.
func (l *lineLog) load(name string, isLast bool) error {
	first := true
	s, err := openSegment(name, isLast, func(s *segment, position uint64, r *record, length int) error {
		if first {
			first = false
			if err := l.join(s.head); err != nil {
				return err
			}
		}
		return l.note(s, position, r, length)
	})
	if err == nil && first {
		if err = l.join(s.head); err != nil {
			err = errors.Join(err, s.file.Close())
		}
	}
	if err != nil {
		return err
	}
	l.mu.segments = append(l.mu.segments, s)
	return nil
}

// join sees that a segment begins where the one before ends.
func (l *lineLog) join(h segmentHead) error {
	if len(l.mu.segments) == 0 {
		l.mu.end, l.mu.lines = h.Base, h.Line
		if h.Base > 0 {
			l.mu.terms = []termStart{{h.Term, h.Base}}
		}
		return nil
	}
	if h.Base != l.mu.end || h.Line != l.mu.lines {
		return fmt.Errorf("%w: it begins at position %d, line %d; the segment before ends at %d, %d", ErrCorrupt, h.Base, h.Line, l.mu.end, l.mu.lines)
	}
	return nil
}

// note takes in a record of segment s at the log's end. The caller holds mu, or has the log to itself.
func (l *lineLog) note(s *segment, position uint64, r *record, length int) error {
	if position != l.mu.end || r.First != l.mu.lines || l.mu.ended || r.Term < l.lastTerm() {
		return fmt.Errorf("%w: a record at position %d, line %d, term %d; the log is at %d, %d, %d (ended: %v)", ErrCorrupt,
			position, r.First, r.Term, l.mu.end, l.mu.lines, l.lastTerm(), l.mu.ended)
	}
	if len(l.mu.terms) == 0 || r.Term > l.lastTerm() {
		l.mu.terms = append(l.mu.terms, termStart{r.Term, position})
	}
	s.note(position, r, length)
	l.mu.end, l.mu.lines = s.end, r.First+r.Lines
	l.mu.ended = r.Kind == kindEnd
	l.mu.keys.add(position, r)
	return nil
}

func (l *lineLog) lastTerm() uint64 {
	if n := len(l.mu.terms); n > 0 {
		return l.mu.terms[n-1].Term
	}
	return 0
}

func (l *lineLog) tail() *segment { return l.mu.segments[len(l.mu.segments)-1] }

// append writes whole records at the log's end and returns when they are synced. An error leaves the log broken.
func (l *lineLog) append(data []byte) (err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.appendLocked(data)
}

func (l *lineLog) appendLocked(data []byte) (err error) {
	if err := l.failed(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			l.breakDown(err)
		}
	}()
	s := l.tail() // only who holds writing changes it
	if l.options.SegmentBytes > 0 && int64(s.end-s.head.Base) >= l.options.SegmentBytes {
		if s, err = createSegment(l.dir, segmentHead{Base: l.mu.end, Line: l.mu.lines, Term: l.lastTerm()}); err != nil {
			return err
		}
		l.mu.Lock()
		l.mu.segments = append(l.mu.segments, s)
		l.mu.Unlock()
	}
	if _, err = s.file.WriteAt(data, s.offset(s.end)); err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	base := l.mu.end
	return eachRecord(data, func(at int, r *record) error {
		length := recordHead + int(len32(data[at:]))
		return l.note(s, base+uint64(at), r, length)
	})
}

// failed tells why the log cannot be used any more.
func (l *lineLog) failed() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.broken
}

func (l *lineLog) breakDown(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.broken == nil {
		l.mu.broken = err
	}
}

// state is where a log stands.
type state struct {
	Head       segmentHead // where it begins
	End, Lines uint64
	Readable   uint64
	Ended      bool
	Terms      []termStart
	Term       uint64 // of the last record
	Keys       int
}

// empty tells whether the log holds no record.
func (s *state) empty() bool { return s.End == s.Head.Base }

func (l *lineLog) state() state {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return state{
		Head: l.mu.segments[0].head, End: l.mu.end, Lines: l.mu.lines, Readable: l.mu.readable, Ended: l.mu.ended,
		Terms: slices.Clone(l.mu.terms), Term: l.lastTerm(), Keys: len(l.mu.keys.byKey),
	}
}

// allow lets readers have what is below a position.
func (l *lineLog) allow(position uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position > l.mu.end {
		panic(fmt.Sprintf("http: position %d would be readable, the log ends at %d", position, l.mu.end))
	}
	if position > l.mu.readable {
		l.mu.readable = position
		close(l.mu.changed)
		l.mu.changed = make(chan struct{})
	}
}

// found looks for a request by its key. It is readable if it counts as taken.
func (l *lineLog) found(key string) (t taken, readable, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t, ok = l.mu.keys.find(key)
	return t, ok && t.position < l.mu.readable, ok
}

// close closes the files.
func (l *lineLog) close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.broken == nil {
		l.mu.broken = os.ErrClosed
	}
	var errs []error
	for _, s := range l.mu.segments {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}
