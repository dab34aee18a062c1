package task

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// input is one input channel: batches that were received and not yet taken.
type input struct {
	channel determinant.ChannelID
	logical int
	mu      struct {
		sync.Mutex
		queue []delivery
	}

	// What follows belongs to the task's goroutine.
	batch     *inflightlog.Batch // being taken
	pos       int                // bytes of it already taken
	left      uint64             // elements of it not yet taken
	next      determinant.Seq    // Invariant: number of elements taken since the job's start
	epoch     determinant.Epoch  // Invariant: of the barrier or skip that comes next, so they rise by one
	blocked   bool               // has delivered this epoch's barrier or skip
	border    boundary           // what that said
	ended     bool
	idle      bool
	renewed   bool       // a new life of the producer begins with the next element, and that has not been seen to
	standings []standing // at the barriers and skips that it has passed, where they differ. Invariant: rising; the first holds at the last checkpoint
	watermark int64
	took      func(*inflightlog.Batch) // for the Probe; nil if there is none
	adopt     func()                   // tells the host that the numbering begins anew
	adopted   atomic.Uint64            // how often it did; any goroutine
}

// standing is what a producer had said of its channel before the end of an epoch.
type standing struct {
	epoch       determinant.Epoch
	ended, idle bool
	watermark   int64
}

func (t *Task) openInputs() {
	m := &t.cfg.Meta
	t.idle, t.ending = len(t.cfg.Inputs) > 0, len(t.cfg.Inputs) > 0
	for i, spec := range t.cfg.Inputs {
		in := &input{channel: spec.Channel, logical: spec.Logical, epoch: m.Epoch + 1, watermark: operator.MinTime}
		if m.Epoch > 0 {
			in.next, in.watermark = m.Inputs[i].Next, m.InputWatermarks[i]
			in.idle, in.ended = m.InputIdle[i], m.InputEnded[i]
		}
		in.standings = []standing{{m.Epoch, in.ended, in.idle, in.watermark}}
		in.adopt = func() {
			t.cfg.Host.Taken(in.channel, in.next, 0)
			in.adopted.Add(1)
		}
		if probe := t.cfg.Probe; probe != nil {
			in.took = func(b *inflightlog.Batch) { probe.Took(t, i, b) }
		}
		t.in = append(t.in, in)
		t.idle = t.idle && (in.idle || in.ended)
		t.ending = t.ending && in.ended
	}
	t.ending = t.ending || t.ended
}

// delivery is a received batch. renumber: it is the first of a new life of the producer that does not repeat the choices of
// the former one, and whose numbering the consumer adopts.
type delivery struct {
	batch    *inflightlog.Batch
	renumber bool
}

// Deliver hands the task a batch of input i. The caller has checked that it continues what was delivered before, or says that
// it begins the output of a new life of the producer, from that one's checkpoint on, which is numbered anew. Any goroutine.
func (t *Task) Deliver(i int, b *inflightlog.Batch, renumber bool) {
	if t.cfg.Probe != nil {
		t.cfg.Probe.Delivered(t, i, b)
	}
	in := t.in[i]
	in.mu.Lock()
	in.mu.queue = append(in.mu.queue, delivery{b, renumber})
	in.mu.Unlock()
}

// Taken is how many elements of input i were taken since the job's start. Task's goroutine.
func (t *Task) Taken(i int) determinant.Seq { return t.in[i].next }

// Adopted is how often the numbering of input i has begun anew: what Host.Taken says afterwards is in the new one. Any
// goroutine.
func (t *Task) Adopted(i int) uint64 { return t.in[i].adopted.Load() }

// load makes the next received batch current; false if there is none.
func (in *input) load() bool {
	if in.batch != nil {
		return true
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	q := in.mu.queue
	if len(q) == 0 {
		return false
	}
	in.batch, in.pos, in.left = q[0].batch, 0, uint64(q[0].batch.Count)
	if q[0].renumber {
		in.next, in.epoch, in.renewed = in.batch.First, in.batch.Epoch, true
		in.adopt()
	}
	q[0] = delivery{}
	in.mu.queue = q[1:]
	if in.took != nil {
		in.took(in.batch)
	}
	return true
}

// available is how many elements of the current batch are left; 0 if nothing has been received.
func (in *input) available() uint64 {
	if !in.load() {
		return 0
	}
	return in.left
}

// ready is how many elements have been received up to the end of the epoch, at most about most of them.
func (in *input) ready(most uint64) uint64 {
	n := in.available()
	if n == 0 || n >= most || in.batch.Control {
		return n
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range in.mu.queue {
		if d.renumber {
			break
		}
		if n += uint64(d.batch.Count); n >= most || d.batch.Control {
			break
		}
	}
	return n
}

// waiting is how many elements have been received, the epoch after the present one included: what the mutation
// InputAcrossBarrier takes.
func (in *input) waiting() uint64 {
	n := in.available()
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range in.mu.queue {
		n += uint64(d.batch.Count)
	}
	return n
}

// takeInput takes elements of the step's input, limit of them at most, until an output has sealed a batch or the input's own is
// used up. It returns how many it took, 0 if none has been received.
func (t *Task) takeInput(in *input, limit uint64) (ran uint64, err error) {
	if in.available() == 0 {
		return 0, nil
	}
	defer func() { t.records.Store(t.taken) }()
	var looked uint64
	ahead := t.foresight(in.logical)
	if ahead > 0 {
		defer func() { t.forget(in, looked-ran) }()
	}
	var e inflightlog.Element
	for ran < limit && in.left > 0 && !t.sealed {
		if ahead > 0 && looked == ran {
			looked += t.foresee(in, min(ahead, limit-ran, in.left))
		}
		if in.blocked && !t.cfg.Mutations.Has(mutation.InputAcrossBarrier) {
			return ran, t.assertion("channel %d gives an element after its barrier of epoch %d", in.channel, t.epoch)
		}
		n, err := inflightlog.Decode(in.batch.Payload[in.pos:], &e)
		if err != nil {
			return ran, fmt.Errorf("task: %s: channel %d, element %d: %w", t, in.channel, in.next, err)
		}
		if err := t.element(in, &e); err != nil {
			return ran, t.userFailure(err)
		}
		in.pos += n
		in.left--
		in.next++
		t.commit()
		t.step.left--
		ran++
	}
	if in.left == 0 {
		size := len(in.batch.Payload)
		in.batch = nil
		t.cfg.Host.Taken(in.channel, in.next, size)
		if t.step.left > 0 && t.replayer == nil && t.cfg.Hold != nil {
			t.sealUnlessHeld() // the rest of the step may take long
		}
	}
	return ran, nil
}

// foresight is of how many records the chain is told before they run; 0: of none. When a full output ends a step's turn, what was foreseen behind it was
// for nothing: then it is as many as ran, and twice as many each time that all did.
func (t *Task) foresight(logical int) uint64 {
	most := uint64(t.chain.Foresight(logical, t.cfg.Probe != nil)) // what is checked runs by way of it, however little state it has
	if n := min(most, t.usable); n > 1 {
		return n
	}
	t.usable = min(2, most)
	return 0
}

// mostUsable bounds what doubling comes to; no chain asks for more.
const mostUsable = 64

// foresee tells the chain which records are among the next n elements of an input. It returns how many elements it has looked at, at least
// one: up to what is no record. Whatever is wrong with them is found when they are taken.
func (t *Task) foresee(in *input, n uint64) (looked uint64) {
	t.foreseen = t.foreseen[:0]
	var e inflightlog.Element
	for pos := in.pos; looked < n; looked++ {
		size, err := inflightlog.Decode(in.batch.Payload[pos:], &e)
		if err != nil || e.Kind != inflightlog.Record {
			break
		}
		t.foreseen = append(t.foreseen, e.Payload)
		pos += size
	}
	if len(t.foreseen) > 1 {
		t.chain.Foresee(in.logical, t.foreseen)
	}
	return max(1, looked)
}

// forget takes back what the chain was told of the next elements of an input, of which so many did not run.
func (t *Task) forget(in *input, wasted uint64) {
	if wasted > 0 {
		t.usable = uint64(max(1, len(t.foreseen)-int(wasted)))
	} else {
		t.usable = min(2*t.usable, mostUsable)
	}
	clear(t.foreseen[:cap(t.foreseen)]) // they keep received memory
	t.chain.Foresee(in.logical, nil)
}

// element runs one element through the chain.
func (t *Task) element(in *input, e *inflightlog.Element) error {
	if in.renewed && !(e.Kind.EndsEpoch() && t.cfg.Mutations.Has(mutation.EndKept)) {
		if err := t.renew(in, e.Kind); err != nil {
			return err
		}
	}
	if in.ended && !e.Kind.EndsEpoch() {
		return t.assertion("channel %d gives a %v after its end", in.channel, e.Kind)
	}
	switch e.Kind {
	case inflightlog.Record:
		return t.record(in, e)
	case inflightlog.Watermark:
		in.watermark = max(in.watermark, e.Time)
		return t.raiseWatermark()
	case inflightlog.Idle, inflightlog.Active:
		in.idle = e.Kind == inflightlog.Idle
		return t.changeIdle()
	case inflightlog.End:
		in.ended = true
		return t.inputEnded()
	case inflightlog.Barrier, inflightlog.Skip:
		return t.barrier(in, e)
	}
	return t.assertion("element of kind %d on channel %d", e.Kind, in.channel)
}

// renew takes back what an input's producer has said since its checkpoint, where it starts again without the choices of its former life: its
// end, that it is idle, and its watermark. It need not say the same again, and before it has, this task's own checkpoint may come. And what
// it sends now must not be passed over as known or as late: it may send to this task what it sent to another one before. The task's own
// watermark does not fall; it waits for that of the new life. A task that has flushed already cannot go on; it starts again itself.
func (t *Task) renew(in *input, first inflightlog.Kind) error {
	in.renewed = false
	at, found := in.standingAt(in.epoch - 1)
	switch {
	case !found:
		return t.assertion("channel %d begins anew in epoch %d, its checkpoint is before %v", in.channel, in.epoch, in.standings)
	case in.ended && !at.ended && t.ending:
		return fmt.Errorf("%w: %s, channel %d", ErrReopened, t, in.channel)
	}
	in.ended, in.idle, in.watermark = at.ended, at.idle, at.watermark
	in.standings = slices.DeleteFunc(in.standings, func(s standing) bool { return s.epoch > at.epoch }) // that was the former life
	if t.ending || first == inflightlog.Idle || first == inflightlog.Active || first == inflightlog.End {
		return nil // the element changes that again
	}
	if err := t.changeIdle(); err != nil {
		return err
	}
	t.commit() // if the element is a record that is set aside, this stays
	return nil
}

// standingAt is what had been said before the end of epoch e; false if that is before the last checkpoint.
func (in *input) standingAt(e determinant.Epoch) (at standing, found bool) {
	for _, s := range in.standings {
		if s.epoch <= e {
			at, found = s, true
		}
	}
	return at, found
}

// passed notes what has been said before the end of epoch e. Producers start again from the last checkpoint or a later one: what held
// before is forgotten.
func (in *input) passed(e, checkpoint determinant.Epoch) {
	last := in.standings[len(in.standings)-1]
	if s := (standing{e, in.ended, in.idle, in.watermark}); s.ended != last.ended || s.idle != last.idle || s.watermark != last.watermark {
		in.standings = append(in.standings, s)
	}
	for len(in.standings) > 1 && in.standings[1].epoch <= checkpoint {
		in.standings = slices.Delete(in.standings, 0, 1)
	}
}

func (t *Task) record(in *input, e *inflightlog.Element) error {
	p := Position{Channel: uint32(t.step.input), Seq: in.next}
	aside, err := t.setAside(p, e.Payload)
	if aside || err != nil {
		return err
	}
	if err := t.chain.Record(in.logical, e.Payload, e.Time, e.HasTime); err != nil {
		return t.recordFailed(p, e.Payload, err)
	}
	t.taken++
	return nil
}

// raiseWatermark hands the chain the least watermark of the inputs that are neither idle nor ended, if it has risen.
func (t *Task) raiseWatermark() error {
	least, live := int64(operator.MaxTime), false
	for _, in := range t.in {
		if in.ended || in.idle {
			continue
		}
		live = true
		least = min(least, in.watermark)
	}
	if !live || least <= t.inWM {
		return nil
	}
	t.inWM = least
	return t.chain.Watermark(least)
}

func (t *Task) changeIdle() error {
	idle := true
	for _, in := range t.in {
		idle = idle && (in.idle || in.ended)
	}
	if idle != t.idle {
		t.idle = idle
		if err := t.chain.Idle(idle); err != nil {
			return err
		}
	}
	return t.raiseWatermark()
}

func (t *Task) inputEnded() error {
	for _, in := range t.in {
		if !in.ended {
			return t.changeIdle() // the others may all be idle
		}
	}
	return t.beginEnd()
}

// beginEnd flushes the chain; the outputs end when the chain has drained (finishEnd).
func (t *Task) beginEnd() error {
	if t.ending {
		return t.assertion("the inputs end twice")
	}
	t.ending = true
	return t.chain.End()
}

// finishEnd ends the outputs once nothing is outstanding. It is called at the end of every step, so where it happens is a
// function of the steps.
func (t *Task) finishEnd() {
	if !t.ending || t.ended || !t.chain.Drained() {
		return
	}
	t.ended = true
	for _, o := range t.outputs {
		o.control(inflightlog.Element{Kind: inflightlog.End}) // the external channel has records and the ends of epochs only
	}
}

// barrier blocks the input until all others have delivered the same barrier (Chandy and Lamport, 1985; Carbone et al.,
// 2015). A skip waits for nothing, if elements of two epochs may mix: what it says holds for the whole job, and not all who are upstream
// of it need have got as far, so that they could wait for this task in turn. Barriers that this task has passed are dropped: a producer
// that began anew repeats them, and one may come after a skip.
func (t *Task) barrier(in *input, e *inflightlog.Element) error {
	if e.Epoch != in.epoch || e.Epoch > t.epoch {
		return t.assertion("channel %d gives barrier %d in epoch %d, the next is %d", in.channel, e.Epoch, t.epoch, in.epoch)
	}
	in.passed(e.Epoch, determinant.Epoch(t.completed.Load()))
	in.epoch++
	if e.Epoch < t.epoch {
		return nil
	}
	if t.step.left > 1 && !t.cfg.Mutations.Has(mutation.InputAcrossBarrier) {
		return t.assertion("an Input step spans barrier %d of channel %d", e.Epoch, in.channel)
	}
	in.blocked = true
	in.border = boundary{epoch: e.Epoch, skip: e.Kind == inflightlog.Skip, mode: e.Mode, depth: e.Depth}
	all := in.border
	for _, other := range t.in {
		if !other.blocked {
			if all.skip && t.mayMix(&all) {
				break
			}
			return nil
		}
		all.skip = all.skip || other.border.skip
		if other.border.mode != e.Mode || other.border.depth != e.Depth {
			return t.assertion("barrier %d opens mode %v depth %v on channel %d, %v depth %v on channel %d",
				e.Epoch, e.Mode, e.Depth, in.channel, other.border.mode, other.border.depth, other.channel)
		}
	}
	t.unblock()
	// The element that completes the alignment counts as taken in the snapshot.
	in.next++
	defer func() { in.next-- }()
	return t.endEpoch(all)
}

func (t *Task) unblock() {
	for _, in := range t.in {
		in.blocked = false
	}
}

// mayMix tells whether the epoch behind the boundary is like the present one, so that it may take in what inputs still have of that.
func (t *Task) mayMix(b *boundary) bool {
	return t.mode == determinant.ExactlyOnce && b.mode == t.mode && b.depth == t.depth
}

// anyBlocked is an input that has delivered its barrier or skip of the epoch, or nil.
func (t *Task) anyBlocked() *input {
	for _, in := range t.in {
		if in.blocked {
			return in
		}
	}
	return nil
}

// endBySkip ends an epoch although its barrier is missing on some inputs: proposeSkip.
func (t *Task) endBySkip(d *determinant.Determinant) error {
	if d.Kind != determinant.KindSkipCheckpoint || d.Epoch != t.epoch || t.anyBlocked() == nil {
		return t.diverged("barrier or skip %d in epoch %d of a task without source", d.Epoch, t.epoch)
	}
	t.unblock()
	return t.endEpoch(boundary{epoch: d.Epoch, skip: true, mode: d.Mode, depth: d.Depth})
}
