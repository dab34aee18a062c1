package causal

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/understudy-stream/understudy/determinant"
)

var (
	// ErrTruncated says that a read begins below the log's base.
	ErrTruncated = errors.New("causal: truncated")
	// ErrBeyond says that a read ends above the log's end.
	ErrBeyond = errors.New("causal: beyond the end of the log")
	// ErrGap says that a merge would leave a gap.
	ErrGap = errors.New("causal: gap")
	// ErrDiffers says that a merge has other bytes where it overlaps.
	ErrDiffers = errors.New("causal: copies of one log differ")
	// ErrOwned says that a merge would extend a log that this worker appends to itself: somebody knows choices of a task
	// here that the task did not make.
	ErrOwned = errors.New("causal: merge extends a log that is appended to here")
)

// segmentSize is the size of the pieces in which a log keeps its bytes.
const segmentSize = 8 << 10

type segment [segmentSize]byte

// view is what a log holds. The structure never changes: truncating makes another view with the same end, cutting and
// restarting make one with an end of its own. A reader that has a view can read [base, end) from it, whatever happens to
// the log.
type view struct {
	base  uint64 // first offset that may be read
	start uint64 // offset of segs[0][0]; start <= base
	segs  []*segment
	// Invariant: bytes below end are written, before end was stored, and never change.
	end *mark
}

// line is how far apart things have to be in memory for cores that write them not to wait for each other: two cache lines, as processors
// fetch the next one too.
const line = 128

// mark is the end of a log, which its appender moves all the time.
type mark struct {
	atomic.Uint64
	_ [line - 8]byte
}

// capture is what a log holds at one moment.
type capture struct {
	view *view
	end  uint64
}

// newFrom returns where what was captured begins for somebody who has what is below a cursor.
func (c *capture) newFrom(cursor determinant.LogOffset) uint64 {
	return max(uint64(cursor), c.view.base)
}

// Log is one task's determinant log: bytes with absolute offsets. One goroutine appends, any number read without waiting.
type Log struct {
	view atomic.Pointer[view]
	own  atomic.Bool
	mu   sync.Mutex // orders those who replace the view
	_    [line - 20]byte
}

// NewLog returns an empty log at base, which is an epoch's start.
func NewLog(base determinant.LogOffset) *Log {
	l := &Log{}
	l.view.Store(emptyView(base))
	return l
}

func emptyView(base determinant.LogOffset) *view {
	v := &view{base: uint64(base), start: uint64(base), end: new(mark)}
	v.end.Store(uint64(base))
	return v
}

// SetOwn says whether this worker appends to the log. An owned log is never extended by Merge nor truncated beyond its end.
func (l *Log) SetOwn(own bool) { l.own.Store(own) }

// Own tells whether this worker appends to the log.
func (l *Log) Own() bool { return l.own.Load() }

// Base returns the offset of the first byte that the log holds.
func (l *Log) Base() determinant.LogOffset { return determinant.LogOffset(l.view.Load().base) }

// End returns the offset after the last byte.
func (l *Log) End() determinant.LogOffset { return determinant.LogOffset(l.view.Load().end.Load()) }

// Bytes returns how many bytes the log holds.
func (l *Log) Bytes() int64 {
	v := l.view.Load()
	return int64(v.end.Load() - v.base)
}

// Append appends whole determinants and returns the new end. Readers see all of p or nothing. Only the log's one appender
// calls it; p is copied. Calling it makes the log an owned one.
func (l *Log) Append(p []byte) determinant.LogOffset {
	if !l.own.Load() {
		l.own.Store(true)
	}
	v := l.view.Load()
	end := v.end.Load()
	if at := end - v.start; at/segmentSize < uint64(len(v.segs)) && at%segmentSize+uint64(len(p)) <= segmentSize {
		copy(v.segs[at/segmentSize][at%segmentSize:], p)
		v.end.Store(end + uint64(len(p)))
		return determinant.LogOffset(end + uint64(len(p)))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.extend(p)
}

// extend appends p, with room made for it. l.mu is held.
func (l *Log) extend(p []byte) determinant.LogOffset {
	v := l.view.Load()
	end := v.end.Load()
	after := end + uint64(len(p))
	if need := int((after - v.start + segmentSize - 1) / segmentSize); need > len(v.segs) {
		grown := *v
		for len(grown.segs) < need {
			grown.segs = append(grown.segs, new(segment)) // beyond the length of any older view
		}
		v = &grown
		l.view.Store(v)
	}
	for at := end - v.start; len(p) > 0; {
		n := copy(v.segs[at/segmentSize][at%segmentSize:], p)
		p = p[n:]
		at += uint64(n)
	}
	v.end.Store(after)
	return determinant.LogOffset(after)
}

// Read appends a copy of the bytes in [from, to) to dst. The error is ErrTruncated or ErrBeyond; then dst comes back as it
// was.
func (l *Log) Read(dst []byte, from, to determinant.LogOffset) ([]byte, error) {
	c := l.capture()
	if uint64(from) < c.view.base {
		return dst, fmt.Errorf("%w: read from %d, base %d", ErrTruncated, from, c.view.base)
	}
	if from > to || uint64(to) > c.end {
		return dst, fmt.Errorf("%w: read of [%d, %d), end %d", ErrBeyond, from, to, c.end)
	}
	return c.view.read(dst, uint64(from), uint64(to)), nil
}

// capture returns the log's end and a view that reaches it. An end beyond the view means that the log has a newer view,
// which was stored before that end.
func (l *Log) capture() capture {
	for {
		v := l.view.Load()
		if end := v.end.Load(); end <= v.start+uint64(len(v.segs))*segmentSize {
			return capture{v, end}
		}
	}
}

func (v *view) read(dst []byte, from, to uint64) []byte {
	for from < to {
		piece := v.piece(from, to)
		dst = append(dst, piece...)
		from += uint64(len(piece))
	}
	return dst
}

// piece returns the bytes from `from` to `to` or to the end of the segment.
func (v *view) piece(from, to uint64) []byte {
	at := from - v.start
	low := at % segmentSize
	return v.segs[at/segmentSize][low:min(low+to-from, segmentSize)]
}

func (v *view) equal(from uint64, p []byte) bool {
	for to := from + uint64(len(p)); from < to; {
		piece := v.piece(from, to)
		if !bytes.Equal(piece, p[:len(piece)]) {
			return false
		}
		p = p[len(piece):]
		from += uint64(len(piece))
	}
	return true
}

// Merge adds what another copy of this log holds at `from`. What the log holds already must be equal (ErrDiffers); what it
// has truncated is passed over. If p begins above the end, that is ErrGap, unless a committed checkpoint covers everything
// below p (covered) or p begins another history of the task (determinant.LogOffset.Anew): then the log restarts there. A log
// that is appended to here can only be compared (ErrOwned), and a later history is passed over: this worker has yet to hear that
// the task lives elsewhere. After an error the log is as it was. p is copied.
func (l *Log) Merge(from determinant.LogOffset, p []byte, covered bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(uint64(from), p, covered); err != nil {
		return err
	}
	l.apply(uint64(from), p)
	return nil
}

// check tells what stands against a merge, changing nothing. l.mu is held.
func (l *Log) check(from uint64, p []byte, covered bool) error {
	v := l.view.Load()
	end := v.end.Load()
	after := from + uint64(len(p))
	if after < from {
		return fmt.Errorf("%w: merge of %d bytes at %d", ErrBeyond, len(p), from)
	}
	if l.elsewhere(from, end) {
		return nil
	}
	if l.own.Load() && after > end {
		return fmt.Errorf("%w: merge of [%d, %d), end %d", ErrOwned, from, after, end)
	}
	if from > end {
		if !covered {
			return fmt.Errorf("%w: merge at %d, end %d", ErrGap, from, end)
		}
		return nil
	}
	low, high := max(from, v.base), min(after, end)
	if low < high && !v.equal(low, p[low-from:high-from]) {
		return fmt.Errorf("%w: merge of [%d, %d) into [%d, %d)", ErrDiffers, from, after, v.base, end)
	}
	return nil
}

// elsewhere tells whether bytes from an offset on belong to a later life of the task that is appended to here.
func (l *Log) elsewhere(from, end uint64) bool {
	return l.own.Load() && determinant.LogOffset(from).Beyond(determinant.LogOffset(end))
}

// apply does the merge that check has found to be right. l.mu is held.
func (l *Log) apply(from uint64, p []byte) {
	end := l.view.Load().end.Load()
	if l.elsewhere(from, end) {
		return
	}
	if from > end {
		l.view.Store(emptyView(determinant.LogOffset(from)))
		end = from
	}
	if after := from + uint64(len(p)); after > end {
		l.extend(p[end-from:])
	}
}

// Truncate drops what is below `to`, which a committed checkpoint covers. If `to` is above the end the log becomes empty
// there, unless it is appended to here: then it only drops all that it has. Truncate never waits for the appender.
func (l *Log) Truncate(to determinant.LogOffset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.view.Load()
	end := v.end.Load()
	base := uint64(to)
	if base <= v.base {
		return
	}
	if base > end {
		if !l.own.Load() {
			l.view.Store(emptyView(to))
			return
		}
		base = end
	}
	drop := (base - v.start) / segmentSize
	l.view.Store(&view{
		base:  base,
		start: v.start + drop*segmentSize,
		segs:  append([]*segment(nil), v.segs[drop:]...), // a copy, lest the dropped ones stay reachable
		end:   v.end,
	})
}

// Cut drops what is at or above `to`, for a rollback. If nothing would be left, or `to` is above the end, the log becomes
// empty at `to`. The log's appender must have stopped.
func (l *Log) Cut(to determinant.LogOffset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.view.Load()
	end := v.end.Load()
	if uint64(to) <= v.base || uint64(to) > end {
		l.view.Store(emptyView(to))
		return
	}
	next := &view{base: v.base, start: v.start, end: new(mark)}
	kept := uint64(to) - v.start
	next.segs = append(next.segs, v.segs[:kept/segmentSize]...)
	if rest := kept % segmentSize; rest > 0 {
		// A copy: readers of the former view may still read what the appender is about to write over.
		last := new(segment)
		copy(last[:rest], v.segs[kept/segmentSize][:rest])
		next.segs = append(next.segs, last)
	}
	next.end.Store(uint64(to))
	l.view.Store(next)
}
