package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// A fence is a new segment: its head carries the incarnation, and its appearance, by one rename, is what makes every write
// of a lower one fail. Two locks order this between processes. The fence lock is held by whoever changes which segment is
// the newest; the writer lock, whose number is in the head, by whoever writes. A process that is stopped in the middle of a
// write keeps the writer lock. It is not waited for for ever: see usurp.

// fence raises the fence if f is beyond it, and gives what is stored.
func (p *part) fence(ctx context.Context, f operator.Fence) (stored operator.Stored, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	leave, err := p.lockFence(ctx)
	if err != nil {
		return stored, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	h, err := p.peek()
	if err != nil {
		return stored, err
	}
	fresh := h.Number == 0
	if !fresh && p.options.Mutations.Has(mutation.FenceMissingAtStoreRead) {
		s, err := p.scan()
		return operator.Stored{Cursor: s.cursor, Deltas: s.deltas}, err
	}
	if f.Incarnation < h.Incarnation || f.Generation < h.Generation {
		return stored, fmt.Errorf("%w: fence for incarnation %d, generation %d of task %d, which is at %d, %d",
			operator.ErrFenced, f.Incarnation, f.Generation, p.task, h.Incarnation, h.Generation)
	}
	lock, err := openLock(p.writerLock(h.Lock))
	if err != nil {
		return stored, err
	}
	defer func() { err = errors.Join(err, lock.close()) }()
	held, err := lock.take(ctx, p.options.Patience)
	if err != nil {
		return stored, err
	}
	if fresh || f.Incarnation > h.Incarnation || f.Generation > h.Generation {
		return p.raise(f, held)
	}
	// The fence is there already, so its writer may go on; a read beside it sees what it had shown when the read began.
	s, err := p.scan()
	if err == nil && s.uncut && held {
		err = p.cutOutput(s.position)
	}
	if err != nil {
		return stored, err
	}
	return operator.Stored{Cursor: s.cursor, Deltas: s.deltas}, nil
}

// lockFence takes the part's fence lock and gives what lets it go.
func (p *part) lockFence(ctx context.Context) (func() error, error) {
	lock, err := openLock(filepath.Join(p.hidden, p.name+".fence"))
	if err != nil {
		return nil, err
	}
	if _, err := lock.take(ctx, 0); err != nil {
		return nil, errors.Join(err, lock.close())
	}
	return lock.close, nil
}

// peek gives the newest segment's head, zero if there is none. The caller holds the fence lock.
func (p *part) peek() (h head, err error) {
	number, err := p.newest()
	if err != nil || number == 0 {
		return h, err
	}
	data, err := p.read(number)
	if err != nil {
		return h, err
	}
	_, err = p.decodeHead(data, number, &h)
	return h, err
}

// raise begins a new segment for f. The caller holds the fence lock and, if held, the writer lock.
func (p *part) raise(f operator.Fence, held bool) (operator.Stored, error) {
	p.forget()
	usurped := uint64(0)
	if !held {
		if err := p.usurp(); err != nil {
			return operator.Stored{}, err
		}
		usurped = 1
	}
	s, err := p.scan()
	if err != nil {
		return operator.Stored{}, err
	}
	h := s.head
	h.Task, h.Incarnation, h.Generation = uint64(p.task), f.Incarnation, f.Generation
	h.Lock += usurped
	switch {
	case f.Restart != nil:
		err = p.restartHead(&h, &s, *f.Restart)
	case f.Cut != nil && (s.head.Number == 0 || f.Generation > s.head.Generation):
		err = p.cutHead(&h, &s, f.Cut.Cursor)
	default:
		h.keep(&s)
	}
	if err == nil {
		err = p.begin(&h)
	}
	if err == nil && h.Cut {
		err = p.cutOutput(h.Position)
	}
	if err == nil {
		err = p.sweep(&h)
	}
	if err != nil {
		return operator.Stored{}, err
	}
	return operator.Stored{Cursor: h.Cursor, Deltas: s.deltas}, nil
}

// keep lets the next segment continue s and makes the newest segment of s the last that it keeps.
func (h *head) keep(s *snapshot) {
	h.Cut = s.uncut
	h.Cursor, h.Position, h.Covered = s.cursor, s.position, s.covered
	h.Kept = nil
	if s.head.Number > 0 {
		h.Kept = append(slices.Clip(s.head.Kept), kept{Number: s.head.Number, Length: s.length, Last: s.last})
	}
}

// drop drops the oldest segments as long as they hold nothing beyond epoch e. What is kept has no gap: a stopped writer must
// find its own segment gone or the next one there.
func (h *head) drop(e determinant.Epoch) {
	for len(h.Kept) > 0 && h.Kept[0].Last <= e {
		h.Kept = h.Kept[1:]
	}
}

// cutHead lets the next segment begin at a checkpoint. Nothing below it is needed any more and nothing above it is valid, so
// no earlier segment is kept.
func (p *part) cutHead(h *head, s *snapshot, to determinant.Cursor) error {
	position, ok := s.find(to)
	if !ok || position > s.visible {
		return fmt.Errorf("%w: %s cannot be cut to %v: no write ended there", ErrCorrupt, p.output(), to)
	}
	h.Cut, h.Cursor, h.Position, h.Covered, h.Kept = true, to, position, position, nil
	s.deltas = nil
	return nil
}

// restartHead lets the next segment begin after the last whole line that is shown, at the writer's own numbering: in
// at-least-once mode what is shown already may be shown again.
func (p *part) restartHead(h *head, s *snapshot, at determinant.Cursor) error {
	position, err := p.lastLineEnd(s.visible)
	if err != nil {
		return err
	}
	h.Cut, h.Cursor, h.Position, h.Covered, h.Kept = true, at, position, position, nil
	s.deltas = nil
	return nil
}

// lastLineEnd gives the end of the last whole line among the first visible bytes of the output.
func (p *part) lastLineEnd(visible uint64) (uint64, error) {
	if visible == 0 {
		return 0, nil
	}
	f, err := p.disk.Open(p.output(), os.O_RDWR)
	if err != nil {
		return 0, fmt.Errorf("file: %w", err)
	}
	end, found := visible, -1
	buffer := make([]byte, 64<<10)
	for err == nil && end > 0 && found < 0 {
		size := min(end, uint64(len(buffer)))
		if _, err = f.ReadAt(buffer[:size], int64(end-size)); err == nil {
			found = bytes.LastIndexByte(buffer[:size], '\n')
			end -= size
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("file: %w", err)
	}
	return end + uint64(found+1), nil
}

// begin makes h the head of the newest segment. The segment appears whole, by a rename, or not at all.
func (p *part) begin(h *head) (err error) {
	h.Number++
	name := p.segment(h.Number)
	temporary := name + ".new"
	f, err := p.disk.Open(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		err = errors.Join(p.append(f, appendHead(nil, h)), f.Close())
	}
	if err == nil {
		err = p.disk.Rename(temporary, name)
	}
	if err == nil && p.options.Sync {
		err = p.disk.SyncDir(p.hidden)
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// cutOutput does what the head of the newest segment says: the one place where visible output goes away.
func (p *part) cutOutput(position uint64) error {
	f, err := p.disk.Open(p.output(), os.O_RDWR|os.O_CREATE)
	if err == nil {
		err = f.Truncate(int64(position))
		if err == nil && p.options.Sync {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// usurp takes the output away from a writer that does not let go of it: a process that was stopped in the middle of a write,
// say. The output becomes a copy of itself under the same name, and the writer keeps a file that nobody sees.
//
// The order makes that safe. The output is replaced before the sidecar is read. What the writer still shows in the old file
// before the rename has its frame in the sidecar by then, so the new incarnation shows it again, byte for byte. What it
// stores after the sidecar was read is beyond the sealed length, and its lines go to the old file.
func (p *part) usurp() error {
	from, err := os.Open(p.output())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	defer from.Close()
	temporary := filepath.Join(p.hidden, p.name+".copy")
	to, err := p.disk.Open(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		if _, err = io.Copy(to, from); err == nil && p.options.Sync {
			err = to.Sync()
		}
		err = errors.Join(err, to.Close())
	}
	if err == nil {
		err = p.disk.Rename(temporary, p.output())
	}
	if err == nil && p.options.Sync {
		err = p.disk.SyncDir(p.dir)
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// sweep removes the segments that h does not keep and what a crash left half made. The caller holds the fence lock.
func (p *part) sweep(h *head) error {
	needed := map[uint64]bool{h.Number: true}
	for _, k := range h.Kept {
		needed[k.Number] = true
	}
	numbers, err := p.segments()
	if err != nil {
		return err
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		if needed[n] {
			continue
		}
		if err := p.disk.Remove(p.segment(n)); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	return p.sweepTemporary()
}

func (p *part) sweepTemporary() error {
	entries, err := os.ReadDir(p.hidden)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	for _, e := range entries {
		half := strings.HasPrefix(e.Name(), p.name+".det.") && strings.HasSuffix(e.Name(), ".new") || e.Name() == p.name+".copy"
		if !half {
			continue
		}
		if err := p.disk.Remove(filepath.Join(p.hidden, e.Name())); err != nil {
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
	if err != nil || !entered {
		return err
	}
	out := p.mu.writer
	h := out.head
	empty := out.frames == 0 && len(h.Kept) == 0
	if h.Incarnation != p.mu.wrote || e <= h.Committed || empty {
		return out.lock.release()
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
	err = errors.Join(err, out.lock.release())
	p.forget()
	return err
}
