package file

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-stream/understudy/determinant"
)

// snapshot is what a part's files say.
type snapshot struct {
	head    head   // of the newest segment; Number 0 if the part is new
	length  uint64 // of the newest segment, up to its last whole frame
	torn    bool   // the newest segment has more bytes than that
	frames  int    // in the newest segment
	last    determinant.Epoch
	cursor  determinant.Cursor // after the last write of which every byte is visible
	uncut   bool               // the cut that the newest segment began with is not done yet
	streams map[string]*stream
	deltas  [][]byte
	steps   []step
}

// stream is one stream of a part, as far as writes go.
type stream struct {
	folder   string
	position uint64            // byte of the stream at the cursor
	covered  uint64            // byte of the stream up to which determinants are stored
	visible  uint64            // where the last file ends
	last     determinant.Epoch // highest epoch in which a frame with lines of it ends
}

// step is a head or a frame that counts, in order. After a write that was cut short, steps go back, and come again in other pieces.
type step struct {
	start, next determinant.Seq // a head's are the same
	places      []place         // where streams stood at a head
	pieces      []piece         // what a frame's write adds
	end         determinant.Cursor
}

// scan reads a part's files and changes nothing. If alone, nobody writes: whatever is visible must be covered. Beside a writer, what it
// shows after its sidecar was read is left out.
func (p *part) scan(alone bool) (s snapshot, err error) {
	const (
		attempts = 5    // a segment may be gone because a checkpoint was committed in between
		patience = 1000 // a later incarnation may write all the time
	)
	for i, busy := 0, 0; i < attempts && busy < patience; {
		s, err = p.scanOnce(alone)
		switch {
		case errors.Is(err, errBusy):
			busy++
			runtime.Gosched()
		case errors.Is(err, os.ErrNotExist):
			i++
		default:
			return s, err
		}
	}
	if errors.Is(err, errBusy) {
		return s, err
	}
	return s, fmt.Errorf("%w: a segment of %s is missing: %w", ErrCorrupt, p.name, err)
}

// errBusy says that files changed while they were read by somebody who should be alone: a later incarnation writes.
var errBusy = errors.New("file: somebody else is writing")

func (p *part) scanOnce(alone bool) (s snapshot, err error) {
	s.streams = map[string]*stream{}
	newest, err := p.newest()
	if err != nil {
		return s, err
	}
	if newest == 0 {
		visible, err := p.visible("")
		if err == nil && visible > 0 {
			err = fmt.Errorf("%w: %s has %d bytes and no determinants", ErrForeign, p.title(""), visible)
		}
		return s, err
	}
	data, err := p.read(newest)
	if err != nil {
		return s, err
	}
	n, err := p.decodeHead(data, newest, &s.head)
	if err != nil {
		return s, err
	}
	for _, k := range s.head.Kept {
		if err := p.scanKept(&s, k); err != nil {
			return s, err
		}
	}
	s.enter(&s.head)
	s.frames, s.last = 0, 0
	from := len(s.steps)
	if err := p.scanFrames(&s, data, n, newest); err != nil {
		return s, err
	}
	s.torn = s.length < uint64(len(data))
	if err = p.judge(&s, from, alone); err != nil && alone {
		now, e := p.read(newest)
		latest, e2 := p.newest()
		if e != nil || e2 != nil || latest != newest || len(now) != len(data) {
			return s, errors.Join(errBusy, e, e2)
		}
	}
	return s, err
}

// enter takes in a head. A stream that it does not name has had no frame that counts.
func (s *snapshot) enter(h *head) {
	for _, at := range h.Streams {
		t := s.stream(at.Folder)
		t.position, t.covered, t.last = at.Position, at.Covered, max(t.last, at.Last)
	}
	s.cursor = h.Cursor
	s.steps = append(s.steps, step{start: h.Cursor.Next, next: h.Cursor.Next, places: h.Streams})
}

func (s *snapshot) stream(folder string) *stream {
	t := s.streams[folder]
	if t == nil {
		t = &stream{folder: folder}
		s.streams[folder] = t
	}
	return t
}

// judge compares the output with the sidecar, of whose steps those from the given one on are the newest segment's frames, and finds the
// last write that is visible whole.
func (p *part) judge(s *snapshot, from int, alone bool) error {
	for _, t := range s.sorted() {
		var err error
		if t.visible, err = p.visible(t.folder); err != nil {
			return err
		}
		if s.head.Cut && s.frames == 0 && t.visible > t.position {
			s.uncut, t.visible = true, t.position
		}
		if !alone {
			t.visible = min(t.visible, t.covered)
		}
		if t.visible > t.covered {
			return fmt.Errorf("%w: %s shows %d bytes, but determinants are stored for %d", ErrCorrupt, p.title(t.folder), t.visible, t.covered)
		}
		if t.visible < t.position {
			return fmt.Errorf("%w: %s shows %d bytes and once showed %d", ErrCorrupt, p.title(t.folder), t.visible, t.position)
		}
	}
	for _, f := range s.steps[from:] {
		if f.start <= s.cursor.Next && s.shows(f.pieces) {
			s.cursor = f.end
		}
	}
	positions, _ := s.places(s.cursor.Next)
	for folder, t := range s.streams { //lint:sorted each by itself
		t.position = positions[folder]
	}
	return nil
}

// shows tells whether all lines of a write are visible.
func (s *snapshot) shows(pieces []piece) bool {
	for _, piece := range pieces {
		if piece.end() > s.streams[piece.Folder].visible {
			return false
		}
	}
	return true
}

// sorted lists the streams by folder.
func (s *snapshot) sorted() []*stream {
	return slices.SortedFunc(maps.Values(s.streams), func(a, b *stream) int { return strings.Compare(a.folder, b.folder) })
}

// scanKept takes in an earlier segment up to its sealed length. Every frame of it must be whole.
func (p *part) scanKept(s *snapshot, k kept) error {
	data, err := p.read(k.Number)
	if err != nil {
		return err
	}
	if k.Length > uint64(len(data)) {
		return fmt.Errorf("%w: %s has %d bytes, was sealed at %d", ErrCorrupt, p.segment(k.Number), len(data), k.Length)
	}
	var h head
	n, err := p.decodeHead(data[:k.Length], k.Number, &h)
	if err != nil {
		return err
	}
	s.enter(&h)
	if err := p.scanFrames(s, data[:k.Length], n, k.Number); err != nil {
		return err
	}
	if s.length != k.Length {
		return fmt.Errorf("%w: %s has a bad frame at byte %d", ErrCorrupt, p.segment(k.Number), s.length)
	}
	return nil
}

// scanFrames takes in the frames of a segment from byte at on, up to the first that is not whole.
func (p *part) scanFrames(s *snapshot, data []byte, at int, number uint64) error {
	for {
		var f frame
		n, err := decodeFrame(data[at:], &f)
		if err != nil {
			s.length = uint64(at)
			return nil
		}
		for _, piece := range f.Pieces {
			t := s.streams[piece.Folder]
			if t == nil { // its first lines since the checkpoint before the last one
				t = s.stream(piece.Folder)
				t.position, t.covered = piece.Position, piece.Position
			}
			if piece.Position > t.covered {
				return fmt.Errorf("%w: %s: the frame at byte %d begins at byte %d of %s, determinants are stored for %d",
					ErrCorrupt, p.segment(number), at, piece.Position, p.title(piece.Folder), t.covered)
			}
			t.covered, t.last = max(t.covered, piece.end()), max(t.last, f.End.Epoch)
		}
		at += n
		s.frames++
		s.last = max(s.last, f.End.Epoch)
		s.steps = append(s.steps, step{start: f.Start.Next, next: f.End.Next, pieces: f.Pieces, end: f.End})
		if len(f.Delta) > 0 {
			s.deltas = append(s.deltas, f.Delta)
		}
	}
}

// find gives where the streams stood at a cursor that a checkpoint names.
func (s *snapshot) find(c determinant.Cursor) (map[string]uint64, bool) {
	if c.Next > 0 {
		return s.places(c.Next)
	}
	start := map[string]uint64{}
	for folder := range s.streams { //lint:sorted each by itself
		start[folder] = 0
	}
	return start, true
}

// places gives where the streams stood before the element with that number, and whether some write or head ends there. All steps are of
// one execution, so that the highest place up to the element that is told of a stream is its place there.
func (s *snapshot) places(next determinant.Seq) (map[string]uint64, bool) {
	ended := false
	below, above := map[string]uint64{}, map[string]uint64{}
	tell := func(folder string, at determinant.Seq, position uint64) {
		if at <= next {
			below[folder] = max(below[folder], position)
		} else if p, ok := above[folder]; !ok || position < p {
			above[folder] = position
		}
	}
	for _, st := range s.steps {
		ended = ended || st.next == next
		for _, place := range st.places {
			tell(place.Folder, st.next, place.Position)
		}
		for _, piece := range st.pieces {
			tell(piece.Folder, st.start, piece.Position)
			tell(piece.Folder, st.next, piece.end())
		}
	}
	for folder, position := range above {
		if _, ok := below[folder]; !ok {
			below[folder] = position
		}
	}
	return below, ended
}

// newest gives the highest number of a segment, 0 if there is none.
func (p *part) newest() (uint64, error) {
	numbers, err := p.segments()
	if err != nil || len(numbers) == 0 {
		return 0, err
	}
	highest := uint64(0)
	for _, n := range numbers {
		highest = max(highest, n)
	}
	return highest, nil
}

// segments lists the numbers of the segments there are.
func (p *part) segments() ([]uint64, error) {
	entries, err := os.ReadDir(p.hidden)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	var numbers []uint64
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), p.name+".det.")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

func (p *part) read(number uint64) ([]byte, error) {
	data, err := os.ReadFile(p.segment(number))
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return data, nil
}

func (p *part) decodeHead(data []byte, number uint64, h *head) (int, error) {
	n, err := decodeHead(data, h)
	switch {
	case errors.Is(err, errVersion):
		return 0, fmt.Errorf("%w: %s: unknown format version", ErrCorrupt, p.segment(number))
	case err != nil:
		return 0, fmt.Errorf("%w: %s: bad head", ErrCorrupt, p.segment(number))
	case h.Task != uint64(p.task) || h.Number != number:
		return 0, fmt.Errorf("%w: %s: the head is that of segment %d of task %d", ErrCorrupt, p.segment(number), h.Number, h.Task)
	}
	return n, nil
}
