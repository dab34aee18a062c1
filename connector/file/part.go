package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// store is one Open of a part.
type store struct {
	directory *Directory
	part      *part
	closed    atomic.Bool
}

var _ operator.CausalStore = (*store)(nil)

func (s *store) Fence(ctx context.Context, f operator.Fence) (operator.Stored, error) {
	if s.closed.Load() {
		return operator.Stored{}, os.ErrClosed
	}
	return s.part.fence(ctx, f)
}

func (s *store) Write(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	if s.closed.Load() {
		return os.ErrClosed
	}
	return s.part.write(ctx, incarnation, w)
}

// Truncate forgets what is no longer needed, if this process is the one that writes; elsewhere it does nothing. A frame of
// epoch e may hold determinants of later epochs of tasks that were ahead when it was written, and deltas are opaque here. So
// frames go only up to the checkpoint before: its barriers had all arrived before those of e set out.
func (s *store) Truncate(ctx context.Context, e determinant.Epoch, _ []determinant.LogOffset) error {
	if s.closed.Load() {
		return os.ErrClosed
	}
	return s.part.rotate(ctx, e)
}

func (s *store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.directory.release(s.part)
}

// part is the output of one sink task: a file of lines and, hidden, its sidecar. All stores of the task in this process
// that one Directory opened share it; other processes are kept apart by the writer lock.
type part struct {
	task    int
	name    string
	dir     string
	hidden  string
	disk    disk
	options SinkOptions
	opens   int // guarded by Directory.mu

	mu struct {
		sync.Mutex
		writer *writer                 // nil until the first Write, and after anything that may have changed the files
		wrote  determinant.Incarnation // newest that has written through this Directory
		lines  []byte
		frame  []byte
	}
}

// writer is the present writer's view of the files.
type writer struct {
	snapshot
	own, next string // names of the newest segment and of the one that would replace it
	lock      *fileLock
	segment   handle
	output    handle
	// prefix is what is visible beyond position: the start of a write that was cut short.
	// Invariant: position + len(prefix) == visible <= covered.
	prefix []byte
}

func (p *part) output() string { return filepath.Join(p.dir, p.name+".jsonl") }

func (p *part) segment(number uint64) string {
	return filepath.Join(p.hidden, fmt.Sprintf("%s.det.%06d", p.name, number))
}

func (p *part) writerLock(number uint64) string {
	return filepath.Join(p.hidden, fmt.Sprintf("%s.lock.%d", p.name, number))
}

// join makes lines of the records.
func (p *part) join(records [][]byte) error {
	p.mu.lines = p.mu.lines[:0]
	for i, r := range records {
		if bytes.IndexByte(r, '\n') >= 0 {
			return fmt.Errorf("%w: record %d of the write to %s", ErrNewline, i, p.output())
		}
		p.mu.lines = append(p.mu.lines, r...)
		p.mu.lines = append(p.mu.lines, '\n')
	}
	return nil
}

func (p *part) write(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.join(w.Records); err != nil {
		return err
	}
	entered, err := p.enter(ctx)
	if err != nil {
		return err
	}
	if !entered {
		return fmt.Errorf("%w: incarnation %d of task %d", ErrUnfenced, incarnation, p.task)
	}
	out := p.mu.writer
	if err := p.admit(incarnation, out.head.Incarnation); err != nil {
		return errors.Join(err, out.lock.release())
	}
	err = p.show(out, incarnation, w)
	if err == nil {
		p.mu.wrote = incarnation
		err = p.confirm(incarnation)
	}
	err = errors.Join(err, out.lock.release())
	if err != nil {
		p.forget() // how much of it is on disk, the files know best
	}
	return err
}

// admit compares a writer's incarnation with that which the store was fenced for.
func (p *part) admit(incarnation, fenced determinant.Incarnation) error {
	switch {
	case incarnation < fenced && !p.options.Mutations.Has(mutation.FenceMissingAtSink):
		return fmt.Errorf("%w: incarnation %d of task %d, now %d", operator.ErrFenced, incarnation, p.task, fenced)
	case incarnation > fenced && !p.options.Mutations.Has(mutation.FenceMissingAtStoreRead):
		return fmt.Errorf("%w: incarnation %d of task %d, fenced is %d", ErrUnfenced, incarnation, p.task, fenced)
	}
	return nil
}

// confirm tells whether the write just done counts: a Fence that ran out of patience with this process has left it a copy of
// the output that nobody sees.
func (p *part) confirm(incarnation determinant.Incarnation) error {
	if replaced, err := p.superseded(); err != nil || !replaced {
		return err
	}
	return fmt.Errorf("%w: incarnation %d of task %d, during a write", operator.ErrFenced, incarnation, p.task)
}

// enter takes the writer lock of the newest segment with an up-to-date view of the files. It is false, and nothing is
// taken, if the part has no segment yet.
func (p *part) enter(ctx context.Context) (bool, error) {
	for {
		if p.mu.writer == nil {
			if err := p.load(); err != nil || p.mu.writer == nil {
				return false, err
			}
		}
		lock := p.mu.writer.lock
		if _, err := lock.take(ctx, 0); err != nil {
			return false, err
		}
		replaced, err := p.superseded()
		if err == nil && !replaced {
			return true, nil
		}
		err = errors.Join(err, lock.release())
		p.forget()
		if err != nil {
			return false, err
		}
	}
}

// superseded tells whether there is a later segment than the writer's: a Fence came in between. Segments go in order of their
// numbers, so that the next one is never gone while the writer's own is there.
func (p *part) superseded() (bool, error) {
	if p.options.Mutations.Has(mutation.FenceMissingAtSink) {
		return false, nil
	}
	later, err := exists(p.mu.writer.next)
	own := true
	if err == nil && !later {
		own, err = exists(p.mu.writer.own)
	}
	if err != nil {
		return false, fmt.Errorf("file: %w", err)
	}
	return later || !own, nil
}

// load opens the files as they are now. The writer stays nil if the part is new.
func (p *part) load() (err error) {
	s, err := p.scan()
	if err != nil || s.head.Number == 0 {
		return err
	}
	if s.uncut {
		return fmt.Errorf("%w: the cut of %s is not done", ErrUnfenced, p.output())
	}
	s.deltas, s.borders = nil, nil
	out := &writer{snapshot: s, own: p.segment(s.head.Number), next: p.segment(s.head.Number + 1)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("file: %w", err), out.close())
		}
	}()
	if out.lock, err = openLock(p.writerLock(s.head.Lock)); err != nil {
		return err
	}
	if out.segment, err = p.disk.Open(out.own, os.O_RDWR|os.O_APPEND); err != nil {
		return err
	}
	if out.output, err = p.disk.Open(p.output(), os.O_RDWR|os.O_APPEND|os.O_CREATE); err != nil {
		return err
	}
	out.prefix = make([]byte, s.visible-s.position)
	if _, err = out.output.ReadAt(out.prefix, int64(s.position)); err != nil {
		return err
	}
	if p.options.Sync && s.visible == 0 {
		if err = p.disk.SyncDir(p.dir); err != nil {
			return err
		}
	}
	p.mu.writer = out
	return nil
}

// forget closes the files. The next call looks at them afresh.
func (p *part) forget() {
	if p.mu.writer != nil {
		p.mu.writer.close() // nothing is buffered: an error has nothing to say
		p.mu.writer = nil
	}
}

func (p *part) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	return nil
}

func (w *writer) close() error {
	var errs []error
	if w.lock != nil {
		errs = append(errs, w.lock.close())
	}
	if w.segment != nil {
		errs = append(errs, w.segment.Close())
	}
	if w.output != nil {
		errs = append(errs, w.output.Close())
	}
	return errors.Join(errs...)
}

// show stores the determinants and then shows the lines: one system call each. The caller holds the writer lock.
func (p *part) show(out *writer, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	if err := follows(out.cursor, w.Start, w.End); err != nil {
		return fmt.Errorf("%s: %w", p.output(), err)
	}
	lines := p.mu.lines
	shown := min(len(lines), len(out.prefix))
	if i := differs(lines[:shown], out.prefix); i >= 0 {
		return fmt.Errorf("%w: %s differs at byte %d, in the write from %v", operator.ErrContradiction, p.output(),
			out.position+uint64(i), w.Start)
	}
	f := frame{
		Incarnation: incarnation, Position: out.position, Length: uint64(len(lines)), Start: w.Start, End: w.End, Delta: w.Delta,
	}
	if p.options.Mutations.Has(mutation.OutputBeforeDeterminants) {
		if err := p.extend(out, lines[shown:]); err != nil {
			return err
		}
		return p.cover(out, &f, shown)
	}
	if err := p.cover(out, &f, shown); err != nil {
		return err
	}
	if out.visible+uint64(len(lines)-shown) > out.covered {
		panic(fmt.Sprintf("file: %s would show %d bytes, determinants are stored for %d", p.output(),
			out.visible+uint64(len(lines)-shown), out.covered))
	}
	return p.extend(out, lines[shown:])
}

// cover appends a frame to the sidecar. shown is how much of its lines is visible already.
func (p *part) cover(out *writer, f *frame, shown int) error {
	if out.torn {
		if err := out.segment.Truncate(int64(out.length)); err != nil {
			return fmt.Errorf("file: %w", err)
		}
		out.torn = false
	}
	p.mu.frame = appendFrame(p.mu.frame[:0], f)
	if len(p.mu.frame) > maxChunk {
		return fmt.Errorf("file: a write of %d bytes of determinants is too long", len(f.Delta))
	}
	if err := p.append(out.segment, p.mu.frame); err != nil {
		return err
	}
	out.length += uint64(len(p.mu.frame))
	out.frames++
	out.last = max(out.last, f.End.Epoch)
	out.covered = max(out.covered, f.end())
	out.cursor, out.position = f.End, f.end()
	out.prefix = out.prefix[shown:]
	return nil
}

// extend appends lines to the output.
func (p *part) extend(out *writer, lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if err := p.append(out.output, lines); err != nil {
		return err
	}
	out.visible += uint64(len(lines))
	return nil
}

func (p *part) append(to handle, data []byte) error {
	_, err := to.Write(data)
	if err == nil && p.options.Sync {
		err = to.Sync()
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// follows tells whether a write from start to end continues an output that ends at cursor. Lengths and checksums count from
// an epoch's start: where only start is in the next epoch, they must be those of its beginning.
func follows(cursor, start, end determinant.Cursor) error {
	switch {
	case start.Next != cursor.Next || start.Epoch < cursor.Epoch || end.Next < start.Next || end.Epoch < start.Epoch:
		return fmt.Errorf("%w: it goes from %v to %v, the output ends at %v", ErrGap, start, end, cursor)
	case start.Epoch == cursor.Epoch && start != cursor, start.Epoch > cursor.Epoch && (start.Bytes != 0 || start.CRC != 0):
		return fmt.Errorf("%w: the write begins at %v, the output ends at %v", operator.ErrContradiction, start, cursor)
	}
	return nil
}

// differs gives the first byte at which two slices differ, -1 if the shorter is a prefix of the longer.
func differs(a, b []byte) int {
	n := min(len(a), len(b))
	if bytes.Equal(a[:n], b[:n]) {
		return -1
	}
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// partName names the files of a task.
func partName(task int) string { return fmt.Sprintf("part-%05d", task) }
