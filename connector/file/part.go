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
	"time"

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

	now func() time.Time

	mu struct {
		sync.Mutex
		writer *writer                 // nil until the first Write, and after anything that may have changed the files
		wrote  determinant.Incarnation // newest that has written through this Directory
		batch  []addition
		frame  []byte
	}
}

// addition is what a write adds to one stream.
type addition struct {
	folder string
	lines  []byte
}

// writer is the present writer's view of the files.
type writer struct {
	snapshot
	lock    *fileLock // nil where there are no locks
	segment handle
	outputs map[string]*output // of streams that were written to
	open    int                // how many of them have a file open
}

// output is where a stream's lines go.
type output struct {
	*stream
	// prefix is what is visible beyond position: the start of a write that was cut short.
	// Invariant: position + len(prefix) == visible <= covered.
	prefix []byte
	last   outFile // zero if the stream has no file
	handle handle  // nil if last is not open
}

func (w *writer) release() error {
	if w.lock == nil {
		return nil
	}
	return w.lock.release()
}

func (p *part) segment(number uint64) string {
	return filepath.Join(p.hidden, fmt.Sprintf("%s.det.%06d", p.name, number))
}

func (p *part) writerLock(turn uint64) string {
	return filepath.Join(p.hidden, fmt.Sprintf("%s.lock.%d", p.name, turn))
}

// join makes lines of the records, those of one stream in one piece.
func (p *part) join(records [][]byte) error {
	p.mu.batch = p.mu.batch[:0]
	at := map[string]int{}
	for i, r := range records {
		if bytes.IndexByte(r, '\n') >= 0 {
			return fmt.Errorf("%w: record %d of the write to %s", ErrNewline, i, p.title(""))
		}
		folder := ""
		if p.options.Key != nil {
			key, err := p.options.Key(r)
			if err == nil {
				folder, err = folderOf(key)
			}
			if err != nil {
				return fmt.Errorf("%w: record %d of a write to %s: %w", ErrKey, i, p.title(""), err)
			}
		}
		n, ok := at[folder]
		if !ok {
			n = p.nextAddition(folder)
			at[folder] = n
		}
		lines := append(p.mu.batch[n].lines, r...)
		p.mu.batch[n].lines = append(lines, '\n')
	}
	return nil
}

// nextAddition begins an addition to a stream, in memory of an earlier one if there is any.
func (p *part) nextAddition(folder string) int {
	n := len(p.mu.batch)
	if n < cap(p.mu.batch) {
		p.mu.batch = p.mu.batch[:n+1]
		p.mu.batch[n] = addition{folder, p.mu.batch[n].lines[:0]}
	} else {
		p.mu.batch = append(p.mu.batch, addition{folder: folder})
	}
	return n
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
		return errors.Join(err, p.leave(out))
	}
	err = p.add(out, incarnation, w)
	if err == nil {
		p.mu.wrote = incarnation
		err = p.confirm(incarnation)
	}
	err = errors.Join(err, out.release())
	if err != nil {
		p.forget() // how much of it is on disk, the files know best
	}
	return err
}

// leave lets the writer lock go, where nothing was written.
func (p *part) leave(out *writer) error {
	err := out.release()
	if out.uncut { // a Fence may do the cut at any moment
		p.forget()
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
	case p.mu.writer.uncut:
		return fmt.Errorf("%w: the cut of %s is not done", ErrUnfenced, p.title(""))
	}
	return nil
}

// confirm tells whether the write just done counts: a Fence may have left this process a copy of the output that nobody sees.
func (p *part) confirm(incarnation determinant.Incarnation) error {
	if replaced, err := p.superseded(); err != nil || !replaced {
		return err
	}
	return fmt.Errorf("%w: incarnation %d of task %d, during a write", operator.ErrFenced, incarnation, p.task)
}

// enter takes the writer lock of the turn with an up-to-date view of the files. It is false, and nothing is
// taken, if the part has no segment yet.
func (p *part) enter(ctx context.Context) (bool, error) {
	for {
		afresh := p.mu.writer == nil
		if afresh {
			if err := p.load(); err != nil || p.mu.writer == nil {
				return false, err
			}
		}
		out := p.mu.writer
		if out.lock != nil {
			if _, err := out.lock.take(ctx, 0); err != nil {
				return false, err
			}
		}
		replaced, err := p.superseded()
		if err == nil && !replaced {
			return true, nil
		}
		if err == nil && afresh {
			err = fmt.Errorf("%w: a later incarnation of task %d is taking over", operator.ErrFenced, p.task)
		}
		err = errors.Join(err, out.release())
		p.forget()
		if err != nil {
			return false, err
		}
	}
}

// superseded tells whether the writer's turn is over: a Fence came in between.
func (p *part) superseded() (bool, error) {
	if p.options.Mutations.Has(mutation.FenceMissingAtSink) {
		return false, nil
	}
	holds, err := p.holds(p.mu.writer.head.Turn)
	return !holds, err
}

// load opens the files as they are now. The writer stays nil if the part is new.
func (p *part) load() (err error) {
	s, err := p.scan(true)
	if err != nil || s.head.Number == 0 {
		return err
	}
	s.deltas, s.steps = nil, nil
	out := &writer{snapshot: s, outputs: map[string]*output{}}
	if !p.options.Shared {
		if out.lock, err = openLock(p.writerLock(s.head.Turn)); err != nil {
			return err
		}
	}
	out.segment, err = p.disk.Open(p.segment(s.head.Number), os.O_RDWR|os.O_APPEND)
	p.mu.writer = out
	if err != nil {
		p.forget()
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// forget closes the files. The next call looks at them afresh.
func (p *part) forget() {
	out := p.mu.writer
	if out == nil {
		return
	}
	p.mu.writer = nil
	for _, o := range out.outputs { //lint:sorted nothing is written
		p.closeOutput(out, o)
	}
	// Nothing is buffered: an error of Close has nothing to say.
	if out.lock != nil {
		_ = out.lock.close()
	}
	if out.segment != nil {
		_ = out.segment.Close()
	}
}

func (p *part) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	return nil
}

// partName names the files of a task.
func partName(task int) string { return fmt.Sprintf("part-%05d", task) }
