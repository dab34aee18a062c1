package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// maxOpen is how many output files of a part are open at once, unless a single write has more streams.
const maxOpen = 128

// add stores the determinants of a write and then shows its lines. The caller has the writer lock, where there are locks.
func (p *part) add(out *writer, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	if err := follows(out.cursor, w.Start, w.End); err != nil {
		return fmt.Errorf("%s: %w", p.title(""), err)
	}
	f := frame{Incarnation: incarnation, Start: w.Start, End: w.End, Delta: w.Delta}
	opened := false
	for _, a := range p.mu.batch {
		o, fresh, err := p.output(out, a.folder)
		if err != nil {
			return err
		}
		opened = opened || fresh
		shown := min(len(a.lines), len(o.prefix))
		if i := differs(a.lines[:shown], o.prefix); i >= 0 {
			return fmt.Errorf("%w: %s differs at byte %d, in the write from %v", operator.ErrContradiction, p.title(a.folder),
				o.position+uint64(i), w.Start)
		}
		f.Pieces = append(f.Pieces, piece{a.folder, o.position, uint64(len(a.lines))})
	}
	if opened { // only what was opened before the last look is replaced by a Fence
		if replaced, err := p.superseded(); err != nil {
			return err
		} else if replaced {
			return fmt.Errorf("%w: incarnation %d of task %d, before a write", operator.ErrFenced, incarnation, p.task)
		}
	}
	early := p.options.Mutations.Has(mutation.OutputBeforeDeterminants)
	if !early {
		if err := p.cover(out, &f); err != nil {
			return err
		}
	}
	for _, a := range p.mu.batch {
		if err := p.extend(out, out.outputs[a.folder], a.lines, early); err != nil {
			return err
		}
	}
	if early {
		return p.cover(out, &f)
	}
	return nil
}

// output gives where the lines of a stream go, and opens its last file if it has one. It is fresh if it was opened now.
func (p *part) output(out *writer, folder string) (o *output, fresh bool, err error) {
	o = out.outputs[folder]
	if o != nil && o.handle != nil {
		return o, false, nil
	}
	if out.open >= maxOpen {
		p.closeOthers(out)
	}
	if o == nil {
		o, err = p.newOutput(out, folder)
		if err != nil {
			return nil, false, err
		}
		out.outputs[folder] = o
	}
	if err := p.touch(p.mark(out.head.Turn, folder)); errors.Is(err, os.ErrNotExist) && !p.options.Mutations.Has(mutation.FenceMissingAtSink) {
		return nil, false, fmt.Errorf("%w: task %d, before a write", operator.ErrFenced, p.task)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, false, err
	}
	out.open++
	if o.last.name == "" {
		o.handle = nil // the file is made when the determinants are stored
		return o, true, nil
	}
	if o.handle, err = p.disk.Open(p.path(folder, o.last.name), os.O_RDWR|os.O_APPEND); err != nil {
		return nil, false, fmt.Errorf("file: %w", err)
	}
	return o, true, nil
}

// newOutput finds out where a stream stands.
func (p *part) newOutput(out *writer, folder string) (*output, error) {
	o := &output{stream: out.streams[folder]}
	files, err := p.files(folder)
	if err != nil {
		return nil, err
	}
	if len(files) > 0 {
		o.last = files[len(files)-1]
	}
	if o.stream == nil { // no frame that counts is of it: all of it was shown, and committed, long ago
		o.stream = out.stream(folder)
		visible, err := p.visible(folder)
		if err != nil {
			return nil, err
		}
		o.visible, o.position, o.covered = visible, visible, visible
	}
	o.prefix, err = p.readStream(folder, o.position, o.visible)
	return o, err
}

// closeOthers closes the files that the present write has no lines for.
func (p *part) closeOthers(out *writer) {
	used := map[string]bool{}
	for _, a := range p.mu.batch {
		used[a.folder] = true
	}
	for folder, o := range out.outputs { //lint:sorted nothing is written
		if !used[folder] {
			p.closeOutput(out, o)
		}
	}
}

// closeOutput closes a stream's file, and says so: what is not open need not be replaced. Nothing is buffered, so that an error has nothing to say.
func (p *part) closeOutput(out *writer, o *output) {
	if o.handle == nil {
		return
	}
	_ = o.handle.Close()
	o.handle = nil
	out.open--
	_ = os.Remove(p.mark(out.head.Turn, o.folder)) // one that stays makes a Fence copy a file for nothing, and that is all
}

// cover appends a frame to the sidecar.
func (p *part) cover(out *writer, f *frame) error {
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
	out.cursor = f.End
	for _, piece := range f.Pieces {
		t := out.streams[piece.Folder]
		t.covered, t.last = max(t.covered, piece.end()), max(t.last, f.End.Epoch)
	}
	return nil
}

// extend shows the lines of a write to a stream, as far as they are not visible yet. Only a test that switches the rule off is early.
func (p *part) extend(out *writer, o *output, lines []byte, early bool) error {
	shown := min(len(lines), len(o.prefix))
	if end := o.visible + uint64(len(lines)-shown); end > o.covered && !early {
		panic(fmt.Sprintf("file: %s would show %d bytes, determinants are stored for %d", p.title(o.folder), end, o.covered))
	}
	o.prefix = o.prefix[shown:]
	o.position += uint64(len(lines))
	within := shown > 0 && lines[shown-1] != '\n' // what is visible ends in the middle of a line
	for rest := lines[shown:]; len(rest) > 0; within = false {
		n := len(rest)
		if p.rolls() {
			if !within && p.due(o, rest) {
				if err := p.closeFile(out, o); err != nil {
					return err
				}
			}
			n = p.fitting(o, rest, within)
		}
		if o.handle == nil {
			if err := p.openFile(out, o); err != nil {
				return err
			}
		}
		if err := p.append(o.handle, rest[:n]); err != nil {
			return err
		}
		o.visible += uint64(n)
		rest = rest[n:]
	}
	return nil
}

func (p *part) rolls() bool { return p.options.RollBytes > 0 || p.options.RollEvery > 0 }

// due tells whether the last file of a stream, which ends with a line, is to be closed before more lines.
func (p *part) due(o *output, lines []byte) bool {
	length := o.visible - o.last.start
	if o.last.name == "" || length == 0 {
		return false
	}
	if most := p.options.RollBytes; most > 0 && length+uint64(bytes.IndexByte(lines, '\n')+1) > uint64(most) {
		return true
	}
	return p.options.RollEvery > 0 && p.now().Sub(o.last.opened) >= p.options.RollEvery
}

// fitting gives how many bytes of lines go into the last file: at least one line, and none beyond the size at which files are closed.
func (p *part) fitting(o *output, lines []byte, within bool) int {
	first := bytes.IndexByte(lines, '\n') + 1
	most := p.options.RollBytes
	if most <= 0 {
		return len(lines)
	}
	length := o.visible - o.last.start
	if o.last.name == "" {
		length = 0
	}
	if length+uint64(first) >= uint64(most) {
		return first
	}
	room := min(uint64(len(lines)), uint64(most)-length)
	return max(first, bytes.LastIndexByte(lines[:room], '\n')+1)
}

// closeFile ends the last file of a stream. The next one begins with the next line.
func (p *part) closeFile(out *writer, o *output) error {
	o.last = outFile{}
	if o.handle == nil {
		return nil
	}
	err := o.handle.Close()
	o.handle = nil
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// openFile makes the next file of a stream. It comes out of the pen with nothing in it: before its first line is in it, everyone can
// see where it begins.
func (p *part) openFile(out *writer, o *output) error {
	next := outFile{start: o.visible, opened: p.now()}
	next.name = p.fileName(next.start, next.opened)
	dir := filepath.Join(p.dir, o.folder)
	if err := p.folder(o.folder); err != nil {
		return err
	}
	made := filepath.Join(p.pen(out.head.Turn), next.name)
	h, err := p.disk.Open(made, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		if err = p.disk.Rename(made, filepath.Join(dir, next.name)); err == nil && p.options.Sync {
			err = p.disk.SyncDir(dir)
		}
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		if holds, e := p.holds(out.head.Turn); e == nil && !holds {
			return fmt.Errorf("%w: task %d, during a write", operator.ErrFenced, p.task)
		}
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	o.last, o.handle = next, h
	return nil
}

// folder makes a stream's folder.
func (p *part) folder(folder string) error {
	if folder == "" {
		return nil
	}
	err := p.disk.Mkdir(filepath.Join(p.dir, folder))
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err == nil && p.options.Sync {
		err = p.disk.SyncDir(p.dir)
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
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
