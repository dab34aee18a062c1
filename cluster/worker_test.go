package cluster

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/transport"
)

func TestTwoWorkersCarryAJob(t *testing.T) {
	c := newCouple(t)
	c.flow()
	require.Equal(t, 10, c.shown())
	require.Empty(t, c.up.rollbacks())
	require.Empty(t, c.down.rollbacks())
	for id := range determinant.TaskID(2) {
		require.Equal(t, c.up.w.Logs().Copy(id), c.down.w.Logs().Copy(id), "whoever has the output has the determinants")
	}
}

// Section 5: no frame is written before the peer has said what it holds.
func TestNoFrameGoesOutBeforeThePeerHasSaidWhatItHolds(t *testing.T) {
	c := newCouple(t)
	m := c.down.w.Write(1, nil)
	have := m.Have
	require.NotNil(t, have)
	m.Have = nil
	c.up.w.Receive(m)
	c.up.step()
	if early := c.up.w.Write(2, nil); early != nil {
		require.Empty(t, early.Frames)
	}
	c.up.w.Receive(&transport.Message{From: 2, Have: have})
	require.NotEmpty(t, c.up.w.Write(2, nil).Frames)
}

// Section 5: what the peer holds is not sent to it again.
func TestADeltaBeginsWhereThePeerStands(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	first := c.sends()
	require.NotEmpty(t, first.Delta)
	c.down.w.Receive(first)
	c.down.w.Relink(1)
	c.up.w.Relink(2)
	c.subscribe()
	require.NoError(t, causal.DecodeDelta(c.up.w.Write(2, nil).Delta, func(id determinant.TaskID, from determinant.LogOffset, _ bool, _ []byte) error {
		require.GreaterOrEqual(t, from, endOf(t, first.Delta, id))
		return nil
	}))
}

// endOf is where a delta leaves the log of a task.
func endOf(t *testing.T, delta []byte, id determinant.TaskID) (end determinant.LogOffset) {
	require.NoError(t, causal.DecodeDelta(delta, func(of determinant.TaskID, from determinant.LogOffset, _ bool, p []byte) error {
		if of == id {
			end = from + determinant.LogOffset(len(p))
		}
		return nil
	}))
	return end
}

// Section 7.3: from a decision on, a worker refuses everything from a dead worker.
func TestAMessageOfADeadWorkerIsRefused(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	m := c.sends()
	c.down.apply(c.next(func(d *standby.Decision) {
		d.Dead, d.Hear = []determinant.WorkerID{1}, []determinant.WorkerID{2}
		for id := range 2 {
			d.Tasks[id].Incarnation, d.Tasks[id].Worker, d.Tasks[id].Recovering = 2, 0, true
		}
	}))
	c.down.w.Receive(m)
	require.Zero(t, c.down.received(2, 0))
	require.Zero(t, c.down.w.Logs().Log(0).End(), "nor are its determinants merged")
	require.Nil(t, c.down.w.Write(1, nil), "and it is told nothing")
}

// Frames of a life that has been replaced are refused, although its worker lives.
func TestAFrameOfAFormerLifeIsDropped(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	m := c.sends()
	c.down.apply(c.next(func(d *standby.Decision) { recovering(0)(d); recovering(1)(d) }))
	c.down.w.Receive(m)
	require.Zero(t, c.down.received(2, 0))
	require.NotZero(t, c.down.w.Logs().Log(0).End(), "old log bytes that a live worker relays stay welcome")
	require.Empty(t, c.down.rollbacks())
}

func TestAMessageOfALowerGenerationIsRefused(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	m := c.sends()
	c.down.apply(c.next(rollback))
	c.down.w.Receive(m)
	require.Zero(t, c.down.received(2, 0))
	require.Zero(t, c.down.w.Logs().Log(0).End())
}

// rollback gives every task a new life in a new generation.
func rollback(d *standby.Decision) {
	d.Generation++
	d.Rollback = true
	for id := range d.Tasks {
		d.Tasks[id].Incarnation++
		d.Tasks[id].Recovering = false
	}
}

// Answers, subscriptions and frames may arrive before their decision does: they are kept.
func TestAMessageOfAHigherGenerationWaitsForItsDecision(t *testing.T) {
	c := newCouple(t)
	e := c.next(rollback)
	c.up.apply(e)
	c.down.w.Receive(&transport.Message{From: 1, Generation: 1, Have: make([]determinant.LogOffset, 4)})
	require.Len(t, c.down.w.mu.early, 1)
	require.Nil(t, c.down.w.mu.conns[1].cursor, "not looked at yet")
	c.down.apply(e)
	require.Empty(t, c.down.w.mu.early)
	require.NotNil(t, c.down.w.mu.conns[1].cursor)
	c.flow()
	require.Equal(t, 10, c.shown())
}

// What is kept of an early message does not change when its sender writes over it.
func TestAnEarlyMessageKeepsItsDelta(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	m := c.sends()
	require.NotEmpty(t, m.Delta)
	e := c.next(func(d *standby.Decision) { d.Generation++ })
	m.Generation++
	c.down.w.Receive(m)
	spoiled(m.Delta)
	c.down.apply(e)
	require.Empty(t, c.down.rollbacks())
	require.Equal(t, c.up.w.Logs().Copy(0), c.down.w.Logs().Copy(0))
}

// The memory for a delta is what it is given, if it fits and if what it was needed for is over.
func TestADeltaIsWrittenOverAFormerOne(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	c.up.step()
	buf := make([]byte, 100, 64<<10)
	m := c.up.w.Write(2, buf)
	require.NotEmpty(t, m.Delta)
	require.Same(t, &buf[0], &m.Delta[0])
	require.NotNil(t, reusable(buf))
	require.Nil(t, reusable(make([]byte, 0, keptDelta+1)), "a big one is not kept")
}

// Of a worker that is dead by then, they are not.
func TestAnEarlyMessageOfAWorkerThatDiedIsDropped(t *testing.T) {
	c := newCouple(t)
	c.down.w.Receive(&transport.Message{From: 1, Generation: 1, Have: make([]determinant.LogOffset, 4)})
	c.down.apply(c.next(func(d *standby.Decision) {
		rollback(d)
		d.Dead = []determinant.WorkerID{1}
	}))
	require.Nil(t, c.down.w.mu.conns[1])
}

func TestEarlyMessagesAreBounded(t *testing.T) {
	c := newCouple(t)
	for range maxEarly + 10 {
		c.down.w.Receive(&transport.Message{From: 1, Generation: 1})
	}
	require.Len(t, c.down.w.mu.early, maxEarly)
}

// A consumer's subscription may be here before the producer's new life is: it waits.
func TestASubscriptionBeforeItsDecisionWaits(t *testing.T) {
	c := newCouple(t)
	c.flow()
	e := c.next(recovering(0))
	c.down.apply(e)
	m := c.down.w.Write(1, nil)
	require.Len(t, m.Subscriptions, 2, "one for each of its tasks")
	c.up.w.Receive(m)
	for _, ch := range c.up.w.job.Tasks[0].Edges[0] {
		s := c.up.w.mu.subs[ch]
		require.True(t, s.active)
		require.False(t, s.attached, "the life that it is for has not begun")
	}
	c.up.apply(e)
	answer(c.down, c.up)
	answer(c.up, c.up)
	c.up.work()
	for _, ch := range c.up.w.job.Tasks[0].Edges[0] {
		require.True(t, c.up.w.mu.subs[ch].attached)
	}
	c.flow()
	require.Equal(t, 10, c.shown(), "nothing is seen twice")
	require.Contains(t, phases(c.up, 0), Recovered)
}

// answer carries the answers that one worker has given to the other.
func answer(from, to *bench) {
	for _, tell := range from.tells {
		if tell.to == to.w.id && tell.m.Answer != nil {
			to.w.Control(tell.m)
		}
	}
	from.tells = nil
}

func phases(b *bench, id determinant.TaskID) (list []Phase) {
	for _, o := range b.observed {
		if o.Task == id {
			list = append(list, o.Phase)
		}
	}
	return list
}

// Section 7.4: frames echo the subscription's number, and those of an older one are dropped silently.
func TestFramesOfAnOlderSubscriptionAreDropped(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	old := c.sends()
	c.down.w.Relink(1)
	c.down.w.Receive(old)
	require.Zero(t, c.down.received(2, 0))
	require.Empty(t, c.down.rollbacks(), "silently")
	c.up.w.Relink(2)
	c.flow()
	require.Equal(t, 10, c.shown())
}

// A gap, a repeat or an overlap is an error, not a warning.
func TestAGapAndARepeatAreErrors(t *testing.T) {
	for name, spoil := range map[string]func(m *transport.Message){
		"gap": func(m *transport.Message) {
			b := m.Frames[0].Batch
			rest, err := b.From(b.First + 1)
			require.NoError(t, err)
			m.Frames[0].Batch = rest
		},
		"repeat":   func(m *transport.Message) { m.Frames = append(m.Frames[:1], m.Frames[0]) },
		"changed":  func(m *transport.Message) { m.Frames[0].Batch = changed(m.Frames[0].Batch) },
		"checksum": func(m *transport.Message) { b := *m.Frames[0].Batch; b.End.CRC++; m.Frames[0].Batch = &b },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCouple(t)
			c.subscribe()
			m := c.sends()
			spoil(m)
			c.down.w.Receive(m)
			require.Len(t, c.down.rollbacks(), 1)
			require.Contains(t, c.down.rollbacks()[0], "consumer is at")
		})
	}
}

func changed(b *inflightlog.Batch) *inflightlog.Batch {
	other := *b
	other.Payload = slices.Clone(b.Payload)
	other.Payload[len(other.Payload)-1] ^= 1
	return &other
}

// The delta is merged whole, before any element of its frames can be chosen; if it cannot be, nothing of the message counts.
func TestAnErrorInTheDeltaDropsTheFrames(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	m := c.sends()
	m.Delta = slices.Clone(m.Delta)
	m.Delta[len(m.Delta)-1] ^= 1
	c.down.w.Receive(m)
	require.Zero(t, c.down.received(2, 0))
	require.Zero(t, c.down.received(3, 0))
	require.Zero(t, c.down.w.Logs().Log(0).End())
	require.Len(t, c.down.rollbacks(), 1)
	require.Contains(t, c.down.rollbacks()[0], "delta of worker 1")
}

func TestACursorThatDoesNotFitIsReportedOnce(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	c.up.step()
	for number := range uint64(3) {
		c.up.w.Receive(&transport.Message{From: 2, Have: make([]determinant.LogOffset, 4), Subscriptions: []transport.Subscription{{
			Channel: 0, Number: 10 + number, Producer: 1, Consumer: 1, Cursor: determinant.Cursor{Next: 1, Epoch: 1, Bytes: 3, CRC: 4},
		}}})
	}
	require.Len(t, c.up.rollbacks(), 1)
	require.Contains(t, c.up.rollbacks()[0], "channel 0")
}

// A subscription of a former life, or for one, is refused.
func TestASubscriptionOfAFormerLifeIsRefused(t *testing.T) {
	c := newCouple(t)
	m := c.down.w.Write(1, nil)
	c.decide(recovering(2))
	c.up.w.Receive(m)
	for _, s := range m.Subscriptions {
		got := c.up.w.mu.subs[s.Channel]
		require.Equal(t, c.up.w.job.Channels[s.Channel].To != 2, got.active, "channel %d", s.Channel)
	}
}

// A credit for an older subscription, or of a former life, grants nothing.
func TestACreditOfAnotherSubscriptionGrantsNothing(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	m := c.sends()
	ch := m.Frames[0].Channel
	log, sent := c.up.w.logOf(ch), m.Frames[0]
	before := log.Outstanding()
	require.NotZero(t, before)
	for _, credit := range []transport.Credit{
		{Channel: ch, Number: sent.Number + 1, Consumer: 1, Taken: 100},
		{Channel: ch, Number: sent.Number, Consumer: 2, Taken: 100},
	} {
		c.up.w.Receive(&transport.Message{From: 2, Credits: []transport.Credit{credit}})
		require.Equal(t, before, log.Outstanding())
	}
	c.up.w.Receive(&transport.Message{From: 2, Credits: []transport.Credit{{Channel: ch, Number: sent.Number, Consumer: 1, Taken: 100}}})
	require.Zero(t, log.Outstanding())
}

// A batch may always be sent when nothing is outstanding, however big it is; the next one then waits for credit.
func TestABatchBeyondTheWindowIsSentAlone(t *testing.T) {
	plan, err := numbersJob(20, 2*DefaultWindow, blindSink{})
	require.NoError(t, err)
	job, err := Layout(plan)
	require.NoError(t, err)
	c := coupleWith(t, job, determinant.ExactlyOnce)
	c.subscribe()
	sent := map[determinant.ChannelID]int{}
	for range 3 {
		c.up.step()
		if m := c.up.w.Write(2, nil); m != nil {
			for _, f := range m.Frames {
				sent[f.Channel]++
			}
			c.down.w.Receive(m)
		}
	}
	require.Len(t, sent, 4)
	for ch, n := range sent {
		require.Equal(t, 1, n, "channel %d: nothing of it was taken", ch)
	}
	c.flow()
	require.Equal(t, 20, c.shown())
}

// A life that died is never started again, although the decision that replaces it is still to come.
func TestALifeThatDiedIsNotStartedAgain(t *testing.T) {
	c := newCouple(t)
	require.True(t, c.up.w.Kill(0, "test"))
	require.False(t, c.up.w.Kill(0, "test"))
	require.ErrorIs(t, c.up.reports[len(c.up.reports)-1].Failed.Err, ErrKilled)
	c.decide(recovering(2)) // about somebody else
	require.Nil(t, c.up.w.Task(0))
	c.decide(recovering(0))
	answer(c.down, c.up)
	answer(c.up, c.up)
	c.up.work()
	require.NotNil(t, c.up.w.Task(0))
	require.Equal(t, determinant.Incarnation(2), c.up.w.Task(0).Incarnation())
}

// Section 7.3: an answer of a round that the worker has not reached is kept; one of an older round does not count.
func TestAnswersCountInTheirRound(t *testing.T) {
	c := newCouple(t)
	c.flow()
	first := c.next(recovering(0))
	c.down.apply(first)
	answer(c.down, c.up) // before the decision
	require.Len(t, c.up.w.mu.answers, 1)
	c.up.apply(first)
	require.Nil(t, c.up.w.Task(0), "its own answer is still on the way")
	own := c.up.tells
	second := c.next(recovering(1)) // another death: everyone answers again
	c.up.apply(second)
	for _, tell := range own {
		c.up.w.Control(tell.m)
	}
	c.up.work()
	require.Nil(t, c.up.w.Task(0), "answers of the first round do not count in the second")
	c.down.apply(second)
	answer(c.down, c.up)
	answer(c.up, c.up)
	c.up.work()
	require.NotNil(t, c.up.w.Task(0))
	c.flow()
	require.Equal(t, 10, c.shown())
}

// Section 6: a causal sink acknowledges a checkpoint only when everything before its barrier is stored outside.
func TestASinkAcknowledgesWhenItsOutputIsStored(t *testing.T) {
	c := newCouple(t)
	c.flow()
	c.up.w.Control(Control{Trigger: &checkpoint.Trigger{Incarnation: 1, Epoch: 1, Depth: determinant.Full}})
	c.flow()
	require.Empty(t, c.up.acked(1), "that trigger came before the word that the checkpoint was started")
	c.begins(1)
	for id := range determinant.TaskID(2) {
		c.up.w.Control(Control{Trigger: &checkpoint.Trigger{Task: id, Incarnation: 1, Epoch: 1, Depth: determinant.Full}})
		c.up.w.Control(Control{Trigger: &checkpoint.Trigger{Task: id, Incarnation: 9, Epoch: 2, Depth: determinant.Full}})
	}
	c.flow()
	require.ElementsMatch(t, []determinant.TaskID{0, 1}, c.up.acked(1))
	require.Empty(t, c.up.acked(2), "that trigger was for another life")
	require.Empty(t, c.down.acked(1), "its output is not visible yet")
	require.Equal(t, 10, c.shown())
	require.ElementsMatch(t, []determinant.TaskID{2, 3}, c.down.acked(1))

	before := len(c.down.reports)
	c.down.w.Control(Control{Poll: &checkpoint.Poll{Epoch: 1}})
	require.Len(t, c.down.reports, before+2, "a new leader hears it again")
}

// acked lists the tasks whose primary has acknowledged epoch e.
func (b *bench) acked(e determinant.Epoch) (ids []determinant.TaskID) {
	for _, r := range b.reports {
		if r.Ack != nil && r.Ack.Epoch == e && r.Ack.Primary {
			ids = append(ids, r.Ack.Task)
		}
	}
	return ids
}

// No output is visible beyond its stored determinants.
func TestOutputIsWrittenWithItsDeterminants(t *testing.T) {
	c := newCouple(t)
	c.flow()
	require.Equal(t, 10, c.shown())
	for id := range c.down.store {
		logs := causal.NewStore(4)
		for _, delta := range c.down.store[id].stored.Deltas {
			require.NoError(t, mergeStored(logs, delta))
		}
		for _, of := range []determinant.TaskID{0, 1, id} {
			require.Equal(t, c.down.w.Logs().Copy(of), logs.Copy(of), "store %d, log %d", id, of)
		}
	}
}

func TestAStoreThatFailsFailsItsTask(t *testing.T) {
	c := newCouple(t)
	c.flow()
	for _, s := range c.down.store {
		s.fail = errors.New("no space left")
	}
	_, err := c.down.w.WriteSink(context.Background(), 2)
	require.ErrorIs(t, err, c.down.store[2].fail)
	last := c.down.reports[len(c.down.reports)-1]
	require.Equal(t, determinant.TaskID(2), last.Failed.Task)
	wrote, err := c.down.w.WriteSink(context.Background(), 2)
	require.False(t, wrote)
	require.NoError(t, err, "it is said once")
}

// A worker that is closed does nothing more.
func TestAClosedWorkerSaysNothing(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	m := c.sends()
	require.NoError(t, c.down.w.Close())
	reports := len(c.down.reports)
	c.down.w.Receive(m)
	c.down.apply(c.next(recovering(2)))
	require.Nil(t, c.down.w.Write(1, nil))
	require.Nil(t, c.down.w.Task(2))
	require.Len(t, c.down.reports, reports)
}

// In at-least-once mode a consumer adopts the numbering of a producer's new life, and credits follow it, although there was
// still something of the former life to take.
func TestCreditsFollowTheNumberingOfANewLife(t *testing.T) {
	c := coupleOf(t, determinant.AtLeastOnce)
	c.up.w.opts.MaxElements = 2
	c.decide(recovering(0)) // a life with small steps
	require.NotNil(t, c.up.w.Task(0), "nothing is collected")
	c.subscribe()
	produce := func(steps int) {
		for range steps {
			require.True(t, c.up.w.Step(c.up.w.Task(0)))
		}
		for _, o := range c.up.w.Task(0).Outputs() {
			o.Seal()
		}
		c.down.w.Receive(c.up.w.Write(2, nil))
	}
	grant := func() {
		if m := c.down.w.Write(1, nil); m != nil {
			c.up.w.Receive(m)
		}
	}
	produce(4) // it is given its split, and reads all of it
	c.decide(recovering(0))
	grant() // and subscribe again
	produce(2)
	for id := range determinant.TaskID(2) {
		require.True(t, c.down.w.Step(c.down.w.Task(2+id))) // takes what the former life sent
	}
	grant()
	produce(1)
	c.down.step()
	grant()
	for _, ch := range c.up.w.job.Tasks[0].Edges[0] {
		require.Zero(t, c.up.w.logOf(ch).Outstanding(), "channel %d", ch)
	}
	c.flow()
	require.Equal(t, 15, c.shown(), "what the split of task 0 holds is seen again")
	require.Empty(t, c.down.rollbacks())
}

// With the fence switched off, the tests above would see it.
func TestWithoutAFenceAFrameOfADeadWorkerCounts(t *testing.T) {
	c := newCouple(t)
	c.down.w.opts.Mutations = mutation.FenceMissingAtReceiver
	c.subscribe()
	m := c.sends()
	c.down.apply(c.next(func(d *standby.Decision) { d.Dead = []determinant.WorkerID{1} }))
	c.down.w.Receive(m)
	require.NotZero(t, c.down.received(2, 0)+c.down.received(3, 0))
}

// Images are stored side by side. What a new leader hears of is the newest that is kept here, and not the one that was stored last.
func TestTheNewestImageThatIsKeptIsRepeated(t *testing.T) {
	c := newCouple(t)
	ack := func(e determinant.Epoch, inc determinant.Incarnation) *checkpoint.Ack {
		return &checkpoint.Ack{Task: 0, Worker: 2, Epoch: e, Incarnation: inc}
	}
	for _, a := range []*checkpoint.Ack{ack(2, 1), ack(3, 1), ack(2, 2), ack(3, 2), ack(3, 1)} {
		c.down.w.report(Report{Ack: a})
	}
	before := len(c.down.reports)
	c.down.w.Register()
	require.Equal(t, []Report{{Ack: ack(3, 2)}}, c.down.reports[before:])
}
