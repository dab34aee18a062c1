package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// A fence is a new turn and a new segment: nobody else brings in a file any more, and the segment's head carries the incarnation. Between
// processes of one machine, two locks spare work: the fence lock is held by whoever fences, and the writer lock of a turn by whoever
// writes, so that a Fence can wait for the end of a write and leave the output files as they are. A process that is stopped in the
// middle of a write keeps the writer lock. It is not waited for for ever. In a shared directory there are no locks.

// fence raises the fence if f is beyond it, and gives what is stored.
func (p *part) fence(ctx context.Context, f operator.Fence) (stored operator.Stored, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	leave, err := p.lockFence(ctx)
	if err != nil {
		return stored, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	const attempts = 10 // one fails only where another Fence succeeds
	for range attempts {
		if stored, err = p.fenceOnce(ctx, f); !errors.Is(err, errTurn) {
			break
		}
	}
	return stored, err
}

func (p *part) fenceOnce(ctx context.Context, f operator.Fence) (stored operator.Stored, err error) {
	h, err := p.peek()
	if err != nil {
		return stored, err
	}
	fresh := h.Number == 0
	if !fresh && p.options.Mutations.Has(mutation.FenceMissingAtStoreRead) {
		s, err := p.scan(false)
		return operator.Stored{Cursor: s.cursor, Deltas: s.deltas}, err
	}
	if f.Incarnation < h.Incarnation || f.Generation < h.Generation {
		return stored, fmt.Errorf("%w: fence for incarnation %d, generation %d of task %d, which is at %d, %d",
			operator.ErrFenced, f.Incarnation, f.Generation, p.task, h.Incarnation, h.Generation)
	}
	idle, release, err := p.lockWriter(ctx, h.Turn)
	if err != nil {
		return stored, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if fresh || f.Incarnation > h.Incarnation || f.Generation > h.Generation {
		return p.raise(ctx, f, idle)
	}
	// The fence is there already, so its writer may go on; a read beside it sees what it had shown when the read began.
	s, err := p.scan(idle)
	if err == nil && s.uncut { // whoever raised the fence has died before the cut was done
		return p.raise(ctx, f, idle)
	}
	if err != nil {
		return stored, err
	}
	return operator.Stored{Cursor: s.cursor, Deltas: s.deltas}, nil
}

// lockFence takes the part's fence lock, where there are locks, and gives what lets it go.
func (p *part) lockFence(ctx context.Context) (func() error, error) {
	if p.options.Shared {
		return func() error { return nil }, nil
	}
	lock, err := openLock(filepath.Join(p.hidden, p.name+".fence"))
	if err != nil {
		return nil, err
	}
	if _, err := lock.take(ctx, 0); err != nil {
		return nil, errors.Join(err, lock.close())
	}
	return lock.close, nil
}

// lockWriter waits for the writer of a turn, and tells whether it is sure that nobody writes.
func (p *part) lockWriter(ctx context.Context, turn uint64) (idle bool, release func() error, err error) {
	if p.options.Shared {
		return false, func() error { return nil }, nil
	}
	lock, err := openLock(p.writerLock(turn))
	if err != nil {
		return false, nil, err
	}
	if idle, err = lock.take(ctx, p.options.Patience); err != nil {
		return false, nil, errors.Join(err, lock.close())
	}
	return idle, lock.close, nil
}

// peek gives the newest segment's head, zero if there is none. The caller holds the fence lock.
func (p *part) peek() (h head, err error) {
	number, err := p.newest()
	if err != nil || number == 0 {
		return h, err
	}
	data, err := p.read(number)
	if errors.Is(err, os.ErrNotExist) { // there is a later one by now
		return h, errTurn
	}
	if err != nil {
		return h, err
	}
	_, err = p.decodeHead(data, number, &h)
	return h, err
}

// raise begins a new turn and a new segment for f. If idle, nobody is in the middle of a write.
func (p *part) raise(ctx context.Context, f operator.Fence, idle bool) (operator.Stored, error) {
	p.forget()
	turn, err := p.advance()
	if err != nil {
		return operator.Stored{}, err
	}
	stored, err := p.raiseWith(ctx, turn, f, idle)
	if err != nil {
		there, e := exists(filepath.Join(p.turns(), turnName(turn)))
		if e == nil && !there { // whatever failed, it is somebody else's affair by now
			err = fmt.Errorf("%w: %w", errTurn, err)
		}
	}
	return stored, err
}

func (p *part) raiseWith(ctx context.Context, turn uint64, f operator.Fence, idle bool) (operator.Stored, error) {
	err := p.takePen(ctx, turn)
	if err == nil {
		err = p.dispossess(turn, idle)
	}
	var s snapshot
	if err == nil {
		s, err = p.scan(true)
	}
	if err != nil {
		return operator.Stored{}, err
	}
	h := s.head
	if f.Incarnation < h.Incarnation || f.Generation < h.Generation { // it came in before the turn was taken
		return operator.Stored{}, errTurn
	}
	raised := h.Number == 0 || f.Incarnation > h.Incarnation || f.Generation > h.Generation
	h.Task, h.Incarnation, h.Generation, h.Turn = uint64(p.task), f.Incarnation, f.Generation, turn
	switch {
	case f.Restart != nil && raised:
		err = p.restartHead(&h, &s, *f.Restart)
	case f.Cut != nil && (h.Number == 0 || f.Generation > s.head.Generation):
		err = p.cutHead(&h, &s, f.Cut.Cursor)
	default:
		h.keep(&s)
	}
	if err == nil {
		err = p.begin(&h)
	}
	if err == nil && h.Cut {
		err = p.cutOutput(&h)
	}
	if err == nil {
		err = p.sweep(&h)
	}
	if err != nil {
		return operator.Stored{}, err
	}
	if holds, err := p.holds(turn); err != nil || !holds { // what was read is no longer what there is
		return operator.Stored{}, errors.Join(errTurn, err)
	}
	return operator.Stored{Cursor: h.Cursor, Deltas: s.deltas}, nil
}

// keep lets the next segment continue s and makes the newest segment of s the last that it keeps.
func (h *head) keep(s *snapshot) {
	h.Cut, h.Cursor = s.uncut, s.cursor
	h.Streams, h.Kept = nil, nil
	for _, t := range s.sorted() {
		h.Streams = append(h.Streams, place{t.folder, t.position, t.covered, t.last})
	}
	if s.head.Number > 0 {
		h.Kept = append(slices.Clip(s.head.Kept), kept{Number: s.head.Number, Length: s.length, Last: s.last})
	}
}

// drop drops the oldest segments as long as they hold nothing beyond epoch e, and the places of streams that then no frame is of.
func (h *head) drop(e determinant.Epoch) {
	for len(h.Kept) > 0 && h.Kept[0].Last <= e {
		h.Kept = h.Kept[1:]
	}
	h.Streams = slices.DeleteFunc(h.Streams, func(s place) bool { return s.Folder != "" && s.Last <= e && s.Position == s.Covered })
}

// cutHead lets the next segment begin at a checkpoint. Nothing below it is needed any more and nothing above it is valid, so
// no earlier segment is kept.
func (p *part) cutHead(h *head, s *snapshot, to determinant.Cursor) error {
	positions, ok := s.find(to)
	h.Cut, h.Cursor, h.Streams, h.Kept = true, to, nil, nil
	for _, t := range s.sorted() {
		position, known := positions[t.folder]
		if ok = ok && (known || to.Next == 0) && position <= t.visible; !ok {
			break
		}
		h.Streams = append(h.Streams, place{t.folder, position, position, t.last})
	}
	if !ok {
		return fmt.Errorf("%w: %s cannot be cut to %v: no write ended there", ErrCorrupt, p.title(""), to)
	}
	s.deltas = nil
	return nil
}

// restartHead lets the next segment begin after the last whole line that is shown, at the writer's own numbering: in
// at-least-once mode what is shown already may be shown again.
func (p *part) restartHead(h *head, s *snapshot, at determinant.Cursor) error {
	h.Cut, h.Cursor, h.Streams, h.Kept = true, at, nil, nil
	for _, t := range s.sorted() {
		position, err := p.lastLineEnd(t.folder, t.visible)
		if err != nil {
			return err
		}
		h.Streams = append(h.Streams, place{t.folder, position, position, t.last})
	}
	s.deltas = nil
	return nil
}

// begin makes h the head of the newest segment. The segment appears whole, out of the pen, or not at all.
func (p *part) begin(h *head) (err error) {
	h.Number++
	name := p.segment(h.Number)
	temporary := filepath.Join(p.pen(h.Turn), filepath.Base(name))
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) { // it may be a second name of something that counts
		return fmt.Errorf("file: %w", err)
	}
	f, err := p.disk.Open(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		err = errors.Join(p.append(f, appendHead(nil, h)), f.Close())
	}
	if err == nil {
		err = p.disk.Link(temporary, name) // and not a rename: what is there already would be lost
	}
	if err == nil {
		err = p.disk.Remove(temporary)
	}
	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", errTurn, err)
	}
	if err == nil && p.options.Sync {
		err = p.disk.SyncDir(p.hidden)
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// cutOutput does what the head of the newest segment says.
func (p *part) cutOutput(h *head) error {
	for _, s := range h.Streams {
		if err := p.cutStream(h.Turn, s.Folder, s.Position); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes the segments below h that it does not keep, and locks of earlier turns. However late it comes, nothing that a later
// head keeps is among them.
func (p *part) sweep(h *head) error {
	needed := map[uint64]bool{}
	for _, k := range h.Kept {
		needed[k.Number] = true
	}
	numbers, err := p.segments()
	if err != nil {
		return err
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		if n >= h.Number || needed[n] {
			continue
		}
		if err := p.disk.Remove(p.segment(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("file: %w", err)
		}
	}
	return p.sweepLocks(h.Turn)
}

func (p *part) sweepLocks(turn uint64) error {
	entries, err := os.ReadDir(p.hidden)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), p.name+".lock.")
		if n, err := strconv.ParseUint(digits, 10, 64); !ok || err != nil || n >= turn {
			continue
		}
		if err := p.disk.Remove(filepath.Join(p.hidden, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("file: %w", err)
		}
	}
	return nil
}

// rotate begins a new segment at a committed checkpoint and drops segments of epochs up to the one before. Only the process
// that writes does it: it knows every frame.
func (p *part) rotate(ctx context.Context, e determinant.Epoch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.wrote == 0 {
		return nil
	}
	leave, err := p.lockFence(ctx)
	if err != nil {
		return err
	}
	err = p.rotateLocked(ctx, e)
	return errors.Join(err, leave())
}

func (p *part) rotateLocked(ctx context.Context, e determinant.Epoch) error {
	entered, err := p.enter(ctx)
	if errors.Is(err, operator.ErrFenced) { // it is somebody else's affair by now
		return nil
	}
	if err != nil || !entered {
		return err
	}
	out := p.mu.writer
	h := out.head
	empty := out.frames == 0 && len(h.Kept) == 0
	if h.Incarnation != p.mu.wrote || e <= h.Committed || empty {
		return p.leave(out)
	}
	if err := p.admit(p.mu.wrote, h.Incarnation); err != nil {
		return errors.Join(err, p.leave(out))
	}
	h.keep(&out.snapshot)
	if h.Committed > 0 {
		h.drop(h.Committed)
	}
	h.Committed = e
	err = p.begin(&h)
	if err == nil {
		err = p.sweep(&h)
	}
	if errors.Is(err, errTurn) {
		err = nil
	}
	err = errors.Join(err, out.release())
	p.forget()
	return err
}
