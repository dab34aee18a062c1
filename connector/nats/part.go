package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

const (
	maxUnacknowledged = 1000       // messages under way; a server drops what it cannot queue, and then all behind it is sent again
	headerRoom        = 512        // bytes of a message that its headers may take
	maxPart           = 256 << 10  // bytes of determinants in one message
	leastPart         = 1 << 10    // a server that takes less than this and headerRoom is of no use
	maxDelta          = 1 << 30    // bytes of determinants of one write
	dedupWindow       = 1000000000 // 1 s, of streams that the sink makes: its messages need no window, and a long one costs the server memory
)

// part is the output of one sink task: a stream. All stores of the task that one Sink opened share it; other processes, and other
// parts, are kept apart by the conditions on each message.
type part struct {
	requests
	sink         *Sink
	task         int
	opens        int    // guarded by Sink.mu
	data, hidden string // subjects

	turn chan struct{} // holds a value while a call is under way; what follows is guarded by it
	// state is what the stream says, as the writer has followed it; nil until the first Write, and after anything unexpected.
	state *state
	ahead []*stored               // records visible beyond state.cursor
	wrote determinant.Incarnation // newest that has written through this Sink
	// astray is the incarnation of a write that has failed: messages of it may still be under way to the server, until there is
	// another head. 0 if there is none.
	astray determinant.Incarnation
	tries  uint64 // tells apart the ids of one incarnation
	limit  int    // bytes of data that fit into a message
	// direct is that the stream's servers give messages in batches, if they are new enough. deaf is the session in which they did not.
	direct bool
	deaf   context.Context
	prefix string // of the ids of hidden messages
	count  uint64 // of them
}

func newPart(s *Sink, task, n int) *part {
	p := &part{sink: s, task: task, turn: make(chan struct{}, 1), data: s.options.Subject, prefix: nuid.Next()}
	p.requests.link, p.requests.stream, p.requests.step = s.mu.link, s.options.Stream, s.step
	if n > 1 {
		p.requests.stream = fmt.Sprintf("%s-%d", s.options.Stream, task)
		p.data = fmt.Sprintf("%s.%d", s.options.Subject, task)
	}
	p.hidden = hiddenSubject(p.stream)
	if s.options.Waiting != nil {
		p.requests.say = func(why string) { s.options.Waiting(task, why) }
	}
	return p
}

// hiddenSubject is where the determinants of a stream's output are.
func hiddenSubject(stream string) string { return "_understudy." + stream }

// prepare makes the stream if there is none, and looks whether it will do.
func (p *part) prepare(ctx context.Context) (*jetstream.StreamInfo, error) {
	info, err := p.info(ctx)
	if errors.Is(err, ErrNoStream) && !p.sink.options.NoCreate {
		if err = p.create(ctx); err == nil {
			info, err = p.info(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := fit(&info.Config, p.data, p.hidden); err != nil {
		return nil, err
	}
	p.direct = info.Config.AllowDirect
	conn, _, err := p.link.get()
	if err != nil {
		return nil, err
	}
	if conn.MaxPayload() == 0 {
		return nil, fmt.Errorf("nats: %w", client.ErrDisconnected)
	}
	p.limit = int(conn.MaxPayload()) - headerRoom
	if most := int(info.Config.MaxMsgSize); most > 0 {
		p.limit = min(p.limit, most-headerRoom)
	}
	if p.limit < leastPart {
		return nil, fmt.Errorf("%w: %s takes messages of %d bytes: want %d", ErrUnfit, p.stream, p.limit+headerRoom, leastPart+headerRoom)
	}
	return info, nil
}

func (p *part) create(ctx context.Context) error {
	_, js, err := p.link.get()
	if err != nil {
		return err
	}
	ctx, done := p.link.bounded(ctx, p.link.options.Timeout)
	defer done()
	err = p.change(func() error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{
			Name: p.stream, Subjects: []string{p.data, p.hidden}, Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			Discard: jetstream.DiscardNew, Replicas: p.sink.options.Replicas, Duplicates: dedupWindow, AllowDirect: true,
			Description: "output of an Understudy job, which alone may write here",
		})
		return err
	}, nil)
	if err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil
	}
	return fmt.Errorf("nats: making stream %s: %w", p.stream, because(ctx, err))
}

func (s *store) Write(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	return s.do(ctx, func(ctx context.Context) error {
		err := s.part.write(ctx, incarnation, &w)
		if err != nil {
			s.part.forget() // how much of it is stored, the stream knows best
		}
		return err
	})
}

// settle makes sure that nothing of a write that failed can still be stored, if there was one.
func (p *part) settle(ctx context.Context, s *state) (*state, error) {
	if s.head == nil || p.astray != s.head.Incarnation {
		return s, nil
	}
	if _, err := p.fence(ctx, operator.Fence{Incarnation: s.head.Incarnation, Generation: s.head.Generation}); err != nil {
		return nil, err
	}
	return p.scan(ctx)
}

func (p *part) forget() { p.state, p.ahead = nil, nil }

// enter makes sure that the writer's view is that of an incarnation which the stream was fenced for.
func (p *part) enter(ctx context.Context, incarnation determinant.Incarnation) error {
	if p.state != nil && p.state.head.Incarnation < incarnation {
		p.forget() // another process may have fenced it since
	}
	if p.state == nil {
		if err := p.load(ctx); err != nil {
			return err
		}
	}
	if p.state == nil {
		return fmt.Errorf("%w: incarnation %d of task %d", ErrUnfenced, incarnation, p.task)
	}
	fenced, mutations := p.state.head.Incarnation, p.sink.options.Mutations
	switch {
	case incarnation < fenced && !mutations.Has(mutation.FenceMissingAtSink):
		return p.fencedOff(incarnation, fenced)
	case incarnation > fenced && !mutations.Has(mutation.FenceMissingAtStoreRead):
		return fmt.Errorf("%w: incarnation %d of task %d, fenced is %d", ErrUnfenced, incarnation, p.task, fenced)
	case p.state.uncut:
		return fmt.Errorf("%w: the cut of %s is not done", ErrUnfenced, p.stream)
	}
	return nil
}

func (p *part) fencedOff(incarnation, by determinant.Incarnation) error {
	return fmt.Errorf("%w: incarnation %d of task %d, now %d", operator.ErrFenced, incarnation, p.task, by)
}

// load looks at the stream. The state stays nil if it was never fenced.
func (p *part) load(ctx context.Context) error {
	s, err := p.scan(ctx)
	if err == nil {
		s, err = p.settle(ctx, s)
	}
	if err != nil || s.head == nil {
		return err
	}
	ahead, err := p.readAhead(ctx, s)
	if err != nil {
		return err
	}
	s.deltas, s.borders = nil, nil
	p.state, p.ahead = s, ahead
	return nil
}

// readAhead gets the records that are visible beyond the cursor.
func (p *part) readAhead(ctx context.Context, s *state) (ahead []*stored, err error) {
	if s.ahead == 0 {
		return nil, nil
	}
	if ahead, err = p.records(ctx, s.position+1, s.last.sequence); err != nil {
		return nil, err
	}
	if uint64(len(ahead)) < s.ahead {
		return nil, fmt.Errorf("%w: %s: %d records behind message %d should be visible, %d are", ErrLost, p.stream, s.ahead,
			s.position, len(ahead))
	}
	return ahead[:s.ahead], nil
}

// records gives the records with sequences from..to.
func (p *part) records(ctx context.Context, from, to uint64) ([]*stored, error) {
	first, err := p.ask(ctx, question{Seq: from, NextFor: p.data})
	if err != nil || first == nil || first.Sequence > to {
		return nil, err
	}
	all, whole, err := p.batches(ctx, p.data, []*stored{first}, to)
	if err == nil && !whole {
		all, err = p.singles(ctx, p.data, all, to)
	}
	return all, err
}

// write stores the determinants and shows the records, in one chain of messages.
func (p *part) write(ctx context.Context, incarnation determinant.Incarnation, w *operator.StoreWrite) error {
	if err := p.enter(ctx, incarnation); err != nil {
		return err
	}
	s := p.state
	if err := follows(s.cursor, w.Start, w.End); err != nil {
		return fmt.Errorf("%s: %w", p.stream, err)
	}
	shown := min(len(w.Records), len(p.ahead))
	for i, m := range p.ahead[:shown] {
		if !bytes.Equal(m.Data, w.Records[i]) {
			return fmt.Errorf("%w: record %d of the write from %v is not what message %d of %s shows", operator.ErrContradiction, i,
				w.Start, m.Sequence, p.stream)
		}
	}
	f := frame{
		Incarnation: incarnation, Number: s.next, Start: w.Start, End: w.End, Shown: uint64(shown),
		Count: uint64(len(w.Records) - shown), Position: s.position, Index: s.index + uint64(len(w.Records)),
	}
	if shown > 0 {
		f.Position = p.ahead[shown-1].Sequence
	}
	plan, parts, err := p.plan(&f, w, shown)
	if err != nil {
		return err
	}
	from := s.last.sequence + 1
	if err := p.deliver(ctx, incarnation, plan); err != nil {
		return err
	}
	p.wrote = incarnation
	s.frames = append(s.frames, kept{at: from, last: w.End.Epoch})
	s.advance(&f, from+uint64(parts)-1)
	p.ahead = p.ahead[shown:]
	if uint64(len(p.ahead)) != s.ahead || s.position > s.last.sequence {
		panic(fmt.Sprintf("nats: %s has %d records ahead, known are %d; position %d of %d", p.stream, s.ahead, len(p.ahead), s.position,
			s.last.sequence))
	}
	return nil
}

// plan makes the messages of a write: the parts of its frame and then what is not visible yet.
func (p *part) plan(f *frame, w *operator.StoreWrite, shown int) (plan []outgoing, parts int, err error) {
	size := min(p.limit-headerRoom, maxPart)
	if len(w.Delta) > maxDelta {
		return nil, 0, fmt.Errorf("nats: a write with %d bytes of determinants is too long", len(w.Delta))
	}
	f.Parts = max(1, uint64((len(w.Delta)+size-1)/size))
	for f.Part = 0; f.Part < f.Parts; f.Part++ {
		from := int(f.Part) * size
		f.Delta = w.Delta[from:min(len(w.Delta), from+size)]
		plan = append(plan, p.entry(appendFrame(nil, f)))
	}
	parts = len(plan)
	p.tries++
	for i, r := range w.Records[shown:] {
		if len(r) > p.limit {
			return nil, 0, fmt.Errorf("%w: record %d of the write to %s has %d bytes, a message may have %d", ErrTooLarge, shown+i,
				p.stream, len(r), p.limit)
		}
		n := f.Index - f.Count + uint64(i) + 1
		plan = append(plan, outgoing{subject: p.data, id: p.recordID(f.Incarnation, n), data: r, record: n})
	}
	if p.sink.options.Mutations.Has(mutation.OutputBeforeDeterminants) {
		plan = append(plan[parts:len(plan):len(plan)], plan[:parts]...)
	}
	return plan, parts, nil
}

// recordID names a record of the output: the task, the incarnation and its try that wrote it, and its number from 1 on.
func (p *part) recordID(incarnation determinant.Incarnation, n uint64) string {
	id := make([]byte, 0, 32)
	for _, v := range []uint64{uint64(p.task), uint64(incarnation), p.tries} {
		id = append(strconv.AppendUint(id, v, 10), '.')
	}
	return string(strconv.AppendUint(id, n, 10))
}

// entry makes a message of the hidden subject.
func (p *part) entry(data []byte) outgoing {
	return outgoing{subject: p.hidden, id: p.entryID(), data: data}
}

func (p *part) entryID() string {
	p.count++
	return p.prefix + "." + strconv.FormatUint(p.count, 10)
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
