package http

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// hookStore is one Open of a part.
type hookStore struct {
	webhook *Webhook
	part    *part
	closed  atomic.Bool
}

var (
	_ operator.CausalStore = (*hookStore)(nil)
	_ operator.Waiter      = (*hookStore)(nil)
)

// Waiting implements operator.Waiter: why a Write of the task in this process waits for the receiver.
func (s *hookStore) Waiting() string { return s.part.waits.Waiting() }

func (s *hookStore) Fence(ctx context.Context, f operator.Fence) (operator.Stored, error) {
	if s.closed.Load() {
		return operator.Stored{}, os.ErrClosed
	}
	return s.part.fence(ctx, f)
}

func (s *hookStore) Write(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	if s.closed.Load() {
		return os.ErrClosed
	}
	return s.part.write(ctx, incarnation, w)
}

func (s *hookStore) Truncate(ctx context.Context, e determinant.Epoch, _ []determinant.LogOffset) error {
	if s.closed.Load() {
		return os.ErrClosed
	}
	return s.part.truncate(ctx, e)
}

func (s *hookStore) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.webhook.release(s.part)
}

// part is the output of one sink task. All stores of the task in this process share it; other processes share its files.
//
// Two files order what processes do. The fence file has the incarnation that may post, the journal what it has posted. A fence first
// replaces the fence file and then reads the journal; a writer first adds to the journal and then reads the fence file. So either the
// fence sees what the writer has stored, or the writer sees that it was replaced, and posts nothing.
type part struct {
	task     int
	stream   string
	base     string // of file names
	options  *WebhookOptions
	do       steps
	receiver *receiver
	opens    int // guarded by Webhook.mu
	waits    operator.Waits

	writing sync.Mutex // held by the writer; guards what follows
	file    *os.File   // of the journal, nil if it is to be opened anew
	journal *journal
	passed  determinant.Epoch // the last checkpoint that Truncate told of

	mu struct {
		sync.Mutex
		fenced determinant.Incarnation // highest that this process has fenced for
		posts  map[*posting]bool       // under way
	}
}

// posting is a Write under way, which a later fence of this process ends.
type posting struct {
	incarnation determinant.Incarnation
	cancel      context.CancelFunc
}

func (p *part) fenceFile() string   { return p.base + ".fence" }
func (p *part) journalFile() string { return p.base + ".journal" }

// readFence reads which life may post; zeros if none may yet.
func (p *part) readFence() (inc determinant.Incarnation, gen determinant.Generation, err error) {
	data, err := os.ReadFile(p.fenceFile())
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("http: %w", err)
	}
	if _, err := fmt.Sscanf(string(data), "%d %d\n", &inc, &gen); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", ErrCorrupt, p.fenceFile())
	}
	return inc, gen, nil
}

// replace gives a file other contents, at once.
func (p *part) replace(name string, data []byte) error {
	return p.do(func() error { return writeWhole(name, string(data), p.options.Sync) }, nil)
}

// lock takes the lock that fences and truncations hold.
func (p *part) lock(ctx context.Context) (*os.File, error) {
	wait := backoff{first: 100 * time.Microsecond, longest: 10 * time.Millisecond}
	for {
		f, err := lockFile(p.base + ".lock")
		if !errors.Is(err, ErrInUse) {
			return f, err
		}
		if pause(ctx, wait.next(), nil); ctx.Err() != nil {
			return nil, fmt.Errorf("http: lock %s: %w", p.base, ctx.Err())
		}
	}
}

// fence raises the fence if f is beyond it, and gives what is stored.
func (p *part) fence(ctx context.Context, f operator.Fence) (stored operator.Stored, err error) {
	lock, err := p.lock(ctx)
	if err != nil {
		return stored, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	inc, gen, err := p.readFence()
	if err != nil {
		return stored, err
	}
	if f.Incarnation < inc || f.Generation < gen {
		return stored, fmt.Errorf("%w: fence for incarnation %d, generation %d of task %d, which is at %d, %d",
			operator.ErrFenced, f.Incarnation, f.Generation, p.task, inc, gen)
	}
	if f.Incarnation > inc || f.Generation > gen {
		if err := p.replace(p.fenceFile(), fmt.Appendf(nil, "%d %d\n", f.Incarnation, f.Generation)); err != nil {
			return stored, err
		}
	}
	p.interrupt(f.Incarnation)
	j, err := readJournal(p.journalFile(), p.task)
	if err != nil {
		return stored, err
	}
	if j == nil || j.head.Incarnation < f.Incarnation || j.head.Generation < f.Generation {
		j = j.succeed(p.task, &f)
		if err := p.replace(p.journalFile(), j.bytes()); err != nil {
			return stored, err
		}
	}
	return operator.Stored{Cursor: j.cursor, Deltas: j.deltas(), Shown: j.head.Shown}, nil
}

// succeed makes the journal of the next life. j is that of the one before, nil if there was none.
func (j *journal) succeed(task int, f *operator.Fence) *journal {
	next := &journal{}
	if j != nil {
		*next = *j
	}
	cut := f.Cut != nil && (j == nil || f.Generation > j.head.Generation)
	next.head.Task, next.head.Incarnation, next.head.Generation, next.head.Shown = uint64(task), f.Incarnation, f.Generation, 0
	switch {
	case f.Restart != nil:
		next.begin(*f.Restart)
	case cut:
		shown := next.count - next.countAt(f.Cut.Cursor.Next)
		next.begin(f.Cut.Cursor)
		next.head.Shown = shown
	}
	return next
}

// begin begins a branch.
func (j *journal) begin(at determinant.Cursor) {
	j.head.Branch++
	j.head.Cursor, j.head.Count = at, 0
	j.cursor, j.count, j.frames = at, 0, nil
}

// interrupt ends what lower incarnations have under way in this process.
func (p *part) interrupt(inc determinant.Incarnation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.fenced = max(p.mu.fenced, inc)
	for w := range p.mu.posts {
		if w.incarnation < inc {
			w.cancel()
		}
	}
}

// begun notes a Write under way; the context ends when a later incarnation's fence is raised here.
func (p *part) begun(ctx context.Context, inc determinant.Incarnation) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	w := &posting{inc, cancel}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.posts == nil {
		p.mu.posts = make(map[*posting]bool)
	}
	p.mu.posts[w] = true
	if inc < p.mu.fenced {
		cancel()
	}
	return ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.mu.posts, w)
		cancel()
	}
}

// write stores what w depends on, posts its records, and notes that they were taken.
func (p *part) write(ctx context.Context, inc determinant.Incarnation, w operator.StoreWrite) (err error) {
	ctx, end := p.begun(ctx, inc)
	defer end()
	p.writing.Lock()
	defer p.writing.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, p.forget()) // how much of it is on disk, the file knows best
			if fenced := p.admit(inc); errors.Is(fenced, operator.ErrFenced) && !errors.Is(err, operator.ErrFenced) {
				err = fmt.Errorf("%w: %w", fenced, err)
			}
		}
	}()
	if err := p.admit(inc); err != nil {
		return err
	}
	if err := p.open(inc); err != nil {
		return err
	}
	j := p.journal
	if err := follows(j.cursor, w.Start, w.End); err != nil {
		return fmt.Errorf("http: task %d: %w", p.task, err)
	}
	f := frame{Start: w.Start, End: w.End, Count: j.count, Delta: w.Delta, Sums: make([]uint32, len(w.Records))}
	for i, r := range w.Records {
		f.Sums[i] = crc32.Checksum(r, castagnoli)
	}
	if err := j.agrees(&f); err != nil {
		return fmt.Errorf("http: task %d: %w", p.task, err)
	}
	if err := p.store(f.append(nil), true); err != nil {
		return err
	}
	if err := p.admit(inc); err != nil {
		return err
	}
	ids := idRange{p.stream, p.task, j.head.Branch, j.count}
	if err := p.receiver.deliver(ctx, inc, ids, w.Records); err != nil {
		return err
	}
	if err := p.admit(inc); err != nil {
		return err
	}
	f.Delta = nil // it is in the file
	j.frames = append(j.frames, f)
	j.cursor, j.count = f.End, f.Count+uint64(len(f.Sums))
	if err := p.store(appendTaken(nil, j.cursor, j.count), false); err != nil {
		return err
	}
	return p.admit(inc) // a journal that was replaced meanwhile does not have it
}

// admit tells whether an incarnation may post.
func (p *part) admit(inc determinant.Incarnation) error {
	now, _, err := p.readFence()
	switch {
	case err != nil:
		return err
	case inc < now:
		return fmt.Errorf("%w: incarnation %d of task %d, now %d", operator.ErrFenced, inc, p.task, now)
	case inc > now:
		return fmt.Errorf("%w: incarnation %d of task %d, fenced is %d", ErrUnfenced, inc, p.task, now)
	}
	return nil
}

// open opens the journal of a life. What a write left half done is cut off.
func (p *part) open(inc determinant.Incarnation) error {
	if p.file != nil && p.journal.head.Incarnation == inc {
		return nil
	}
	if err := p.forget(); err != nil {
		return err
	}
	f, err := os.OpenFile(p.journalFile(), os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: task %d has no journal", ErrUnfenced, p.task)
	}
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	j, err := readJournal(p.journalFile(), p.task)
	if err == nil && j.head.Incarnation != inc {
		err = fmt.Errorf("%w: the journal of task %d is that of incarnation %d, not %d", ErrUnfenced, p.task, j.head.Incarnation, inc)
	}
	if err == nil {
		err = p.do(func() error { return f.Truncate(j.length) }, nil)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	p.file, p.journal = f, j
	return nil
}

// store adds an entry to the journal.
func (p *part) store(entry []byte, sync bool) error {
	if len(entry) > maxEntry {
		return fmt.Errorf("http: a write with %d bytes of determinants is too long", len(entry))
	}
	write := func(data []byte) error { _, err := p.file.Write(data); return err }
	err := p.do(func() error { return write(entry) }, func() error { return write(entry[:len(entry)/2]) })
	if err == nil && sync && p.options.Sync {
		err = p.do(p.file.Sync, nil)
	}
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}

func (p *part) forget() error {
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file, p.journal = nil, nil
	return err
}

// close ends what is under way and closes the journal.
func (p *part) close() error {
	p.mu.Lock()
	for w := range p.mu.posts {
		w.cancel()
	}
	p.mu.Unlock()
	p.writing.Lock()
	defer p.writing.Unlock()
	return p.forget()
}

// truncate forgets what is no longer needed, if this process is the one that writes. As a frame may hold determinants of epochs beyond
// its own, of tasks that were ahead, frames go up to the checkpoint before e only: its barriers had all arrived before those of e set out.
func (p *part) truncate(ctx context.Context, e determinant.Epoch) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !p.writing.TryLock() {
		return nil // it is writing, perhaps for long: the next checkpoint comes
	}
	defer p.writing.Unlock()
	if p.file == nil || e <= p.passed {
		return nil
	}
	before := p.passed
	p.passed = e
	lock, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	inc := p.journal.head.Incarnation
	if err := p.admit(inc); err != nil {
		if errors.Is(err, operator.ErrFenced) {
			return nil
		}
		return err
	}
	j, err := readJournal(p.journalFile(), p.task)
	if err != nil || j == nil || j.head.Incarnation != inc || !j.drop(before) {
		return err
	}
	if err := p.forget(); err != nil {
		return err
	}
	return p.replace(p.journalFile(), j.bytes())
}

// follows tells whether a write from start to end continues an output that ends at cursor. Lengths and checksums count from an epoch's
// start: where only start is in the next epoch, they must be those of its beginning.
func follows(cursor, start, end determinant.Cursor) error {
	switch {
	case start.Next != cursor.Next || start.Epoch < cursor.Epoch || end.Next < start.Next || end.Epoch < start.Epoch:
		return fmt.Errorf("%w: it goes from %v to %v, the output ends at %v", ErrGap, start, end, cursor)
	case start.Epoch == cursor.Epoch && start != cursor, start.Epoch > cursor.Epoch && (start.Bytes != 0 || start.CRC != 0):
		return fmt.Errorf("%w: the write begins at %v, the output ends at %v", operator.ErrContradiction, start, cursor)
	}
	return nil
}

// agrees compares a write with what may have been posted at the same place before.
func (j *journal) agrees(f *frame) error {
	for i := range j.frames {
		old := &j.frames[i]
		for k, sum := range old.Sums {
			at := old.Count + uint64(k)
			if at >= f.Count && at < f.Count+uint64(len(f.Sums)) && f.Sums[at-f.Count] != sum {
				return fmt.Errorf("%w: record %d of branch %d differs, in the write from %v", operator.ErrContradiction, at, j.head.Branch, f.Start)
			}
		}
	}
	return nil
}
