package nats

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/understudy-stream/understudy/determinant"
)

// state is what a stream says.
type state struct {
	head   *head  // the newest; nil if the stream is new
	headAt uint64 // its sequence
	last   place  // the stream's last message
	cursor determinant.Cursor
	// position is the sequence of the last record at cursor, index how many records there are up to it, and ahead how many are
	// visible beyond: the start of a write that was cut short.
	position, index, ahead uint64
	next                   uint64 // number of the next frame
	frames                 []kept // those that count, in order; numbered up to next without a gap
	uncut                  bool   // the cut that the newest head tells of is not done yet
	deltas                 [][]byte
	borders                []border
	heads                  []uint64 // sequences of those since the newest's Origin
}

// kept is a frame that counts.
type kept struct {
	at   uint64 // sequence of its first part
	last determinant.Epoch
}

// border is where a write ended.
type border struct {
	next            determinant.Seq
	position, index uint64
}

// entry is a head or a whole frame with the sequences of its first and last message, and of what follows it on the hidden
// subject.
type entry struct {
	head             *head
	frame            *frame
	from, at, before uint64
}

// scan reads what the stream says and changes nothing but that the stream is made if there is none. It may run beside a writer: what
// comes behind the last message that it saw is not looked at.
func (p *part) scan(ctx context.Context) (*state, error) {
	last, err := p.lastOf(ctx, p.prepare)
	if err != nil || last == 0 {
		return &state{last: place{sequence: last}}, err
	}
	messages, last, err := p.history(ctx)
	s := &state{last: place{sequence: last}}
	if err != nil {
		return nil, err
	}
	entries, err := p.entries(messages, last)
	if err != nil {
		return nil, err
	}
	if err := p.fold(s, entries); err != nil {
		return nil, err
	}
	m, err := p.ask(ctx, question{Seq: last})
	if err != nil {
		return nil, err
	}
	if m != nil {
		s.last.id = m.id()
	}
	if s.head.Cut {
		m, err := p.ask(ctx, question{Seq: s.position + 1, NextFor: p.data})
		if err != nil {
			return nil, err
		}
		s.uncut = m != nil && m.Sequence < s.headAt
	}
	return s, nil
}

// lastOf gives the sequence of the stream's last message.
func (p *part) lastOf(ctx context.Context, info func(context.Context) (*jetstream.StreamInfo, error)) (last uint64, err error) {
	err = p.persist(ctx, "reading", func() error {
		i, err := info(ctx)
		if err == nil {
			last = i.State.LastSeq
		}
		return err
	})
	return last, err
}

// entries puts the parts of frames together. A frame that is not whole was cut short and has no records; it is left out.
func (p *part) entries(messages []*stored, last uint64) (entries []entry, err error) {
	var open *entry // a frame of which parts are still to come
	for _, m := range messages {
		if len(entries) > 0 && entries[len(entries)-1].before > m.Sequence {
			entries[len(entries)-1].before = m.Sequence
		}
		h, f, err := decodeEntry(m.Data)
		if err != nil {
			return nil, fmt.Errorf("%w: message %d of %s: %w", ErrForeign, m.Sequence, p.stream, err)
		}
		switch {
		case h != nil:
			open = nil
			entries = append(entries, entry{head: h, from: m.Sequence, at: m.Sequence, before: last + 1})
			continue
		case f.Part == 0:
			open = &entry{frame: f, from: m.Sequence}
		case open == nil || f.Part != open.frame.Part+1 || f.Number != open.frame.Number || f.Incarnation != open.frame.Incarnation:
			open = nil // its first part was purged, or removed
			continue
		default:
			open.frame.Delta = append(open.frame.Delta[:len(open.frame.Delta):len(open.frame.Delta)], f.Delta...)
			open.frame.Part = f.Part
		}
		if f.Part+1 == f.Parts {
			open.at, open.before = m.Sequence, last+1
			entries = append(entries, *open)
			open = nil
		}
	}
	return entries, nil
}

// fold makes a state of the entries.
func (p *part) fold(s *state, entries []entry) error {
	newest := -1
	for i := range entries {
		if entries[i].head != nil {
			newest = i
		}
	}
	if newest < 0 {
		return fmt.Errorf("%w: %s has had messages, and there is no head of this sink: use a stream that is new", ErrForeign, p.stream)
	}
	h := entries[newest].head
	if h.Job != p.identity() {
		return fmt.Errorf("%w: %s belongs to job %q, this is job %q: nothing was written", ErrJob, p.stream, h.Job, p.identity())
	}
	if h.Task != uint64(p.task) {
		return fmt.Errorf("%w: %s has the output of task %d, this is task %d", ErrJob, p.stream, h.Task, p.task)
	}
	s.head, s.headAt, s.next = h, entries[newest].at, h.First
	for _, e := range entries[:newest] {
		if e.head != nil && e.at >= h.Origin {
			s.began(e.head, e.at)
		}
		if e.frame == nil || e.frame.Number < h.First || e.frame.Number >= h.Next {
			continue
		}
		if err := p.keep(s, &e); err != nil {
			return err
		}
		if e.before-e.at-1 == e.frame.Count {
			s.borders = append(s.borders, e.border())
		}
	}
	if s.next != h.Next {
		return p.missing(s.next, h.Next)
	}
	s.cursor, s.position, s.index, s.ahead = h.Cursor, h.Position, h.Index, h.Ahead
	s.began(h, s.headAt)
	if e := &entries[newest]; e.before != e.at+1 {
		return fmt.Errorf("%w: messages %d to %d of %s have no determinants", ErrLost, e.at+1, e.before-1, p.stream)
	}
	for _, e := range entries[newest+1:] {
		if e.frame.Start.Next != s.cursor.Next {
			return fmt.Errorf("%w: %s: the write of message %d begins at %v, the one before ends at %v", ErrLost, p.stream, e.at,
				e.frame.Start, s.cursor)
		}
		if err := p.keep(s, &e); err != nil {
			return err
		}
		visible := e.before - e.at - 1
		switch {
		case visible > e.frame.Count || e.frame.Shown > s.ahead:
			return fmt.Errorf("%w: %s: the write of message %d has %d records, and %d messages follow", ErrForeign, p.stream, e.at,
				e.frame.Count, visible)
		case visible == e.frame.Count:
			s.advance(e.frame, e.at)
			s.borders = append(s.borders, e.border())
		default: // cut short: the next write begins there again
			s.ahead += visible
		}
	}
	return nil
}

// keep takes in a frame that counts. Frames are numbered without a gap.
func (p *part) keep(s *state, e *entry) error {
	if e.frame.Number != s.next {
		return p.missing(s.next, e.frame.Number)
	}
	s.next++
	s.frames = append(s.frames, kept{at: e.from, last: e.frame.End.Epoch})
	if len(e.frame.Delta) > 0 {
		s.deltas = append(s.deltas, e.frame.Delta)
	}
	return nil
}

func (p *part) missing(from, to uint64) error {
	return fmt.Errorf("%w: determinants of the writes %d to %d of %s were removed: by a limit on the stream's age or size, or by hand",
		ErrLost, from, to-1, p.stream)
}

func (p *part) identity() string {
	p.sink.mu.Lock()
	defer p.sink.mu.Unlock()
	return p.sink.mu.identity
}

// position is the sequence of the last record at the end of a write whose frame ends at a sequence.
func (f *frame) position(at uint64) uint64 {
	if f.Count == 0 {
		return f.Position
	}
	return at + f.Count
}

func (e *entry) border() border {
	return border{e.frame.End.Next, e.frame.position(e.at), e.frame.Index}
}

// began takes in a head.
func (s *state) began(h *head, at uint64) {
	s.heads = append(s.heads, at)
	s.borders = append(s.borders, border{h.Cursor.Next, h.Position, h.Index})
}

// advance goes on behind a write that is visible whole. Its frame's last part has sequence at.
func (s *state) advance(f *frame, at uint64) {
	s.cursor, s.position, s.index = f.End, f.position(at), f.Index
	s.ahead -= f.Shown
	s.next = f.Number + 1
}

// find gives the border at a cursor that a checkpoint names.
func (s *state) find(c determinant.Cursor) (border, bool) {
	if c.Next == 0 {
		return border{}, true
	}
	for i := len(s.borders) - 1; i >= 0; i-- {
		if s.borders[i].next == c.Next {
			return s.borders[i], true
		}
	}
	return border{}, false
}
