package task

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
)

var errPoison = errors.New("cannot stomach it")

// choosy emits what it gets, but fails on 13 by an error and on 14 by a panic, after it has emitted something. Numbers from
// 100 on make it look at the clock first, from 200 on also draw.
func choosy(ctx operator.Context, v uint64, emit func(uint64)) error {
	if v >= 100 {
		emit(uint64(ctx.Now().UnixMilli()) % 1000)
	}
	if v >= 200 {
		emit(ctx.Rand().Uint64() % 100)
	}
	emit(v)
	switch v % 100 {
	case 13:
		return errPoison
	case 14:
		panic("cannot stomach it")
	}
	return nil
}

func asidePosition(channel uint32, seq determinant.Seq) func(*Config) {
	return func(c *Config) { c.SkipAt = []Poison{{Position: Position{Channel: channel, Seq: seq}}} }
}

// Section 12: a user function that returns an error or panics fails its task, and the error shows which record and where.
func TestErrorsAndPanicsAreAPoisonWithPositionAndRecord(t *testing.T) {
	for _, poison := range []uint64{13, 14, 113, 214} {
		r := newRig(t, mapVertex(t, 2, choosy))
		r.feed(1, record(1), record(2), record(poison), record(3))
		var p *Poison
		err := r.try()
		require.ErrorAs(t, err, &p)
		require.Equal(t, Position{Channel: 1, Seq: 2}, p.Position)
		require.True(t, p.Known)
		require.Equal(t, record(poison).Payload, p.Record)
		require.Equal(t, "f", p.Operator)
		require.Equal(t, "f[0]", p.Vertex)
		require.Equal(t, r.cfg.ID, p.Task)
		require.ErrorContains(t, err, `operator "f" failed on the record at channel 1, sequence number 2`)
		require.ErrorContains(t, err, "cannot stomach it")
		require.Equal(t, poison%100 == 13, errors.Is(err, errPoison))
	}
}

func TestTheSamePoisonMetAgainIsTheSame(t *testing.T) {
	fail := func(seq determinant.Seq, before ...inflightlog.Element) *Poison {
		r := newRig(t, mapVertex(t, 1, choosy))
		r.feed(0, append(before, record(13))...)
		var p *Poison
		require.ErrorAs(t, r.try(), &p)
		require.Equal(t, seq, p.Position.Seq)
		return p
	}
	require.True(t, fail(0).Same(fail(0)))
	require.False(t, fail(0).Same(fail(1, record(1))))
}

// A failed element leaves nothing behind: of a record that had emitted before it failed, nothing is shown.
func TestTheOutputOfAFailedElementLeavesNothingBehind(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, choosy))
	r.feed(0, record(1), record(2), record(113), record(3))
	require.Error(t, r.try())
	require.Equal(t, []string{"1", "2"}, r.shown(0))
}

// Section 12: the record is set aside, with a Skip determinant, by a later life that finds the log at its end there.
func TestAPoisonedRecordIsSetAsideWhereTheLogEnds(t *testing.T) {
	for _, poison := range []uint64{13, 14, 113, 214} {
		t.Run(fmt.Sprint(poison), func(t *testing.T) {
			v := mapVertex(t, 1, choosy)
			elements := []inflightlog.Element{record(1), record(2), record(poison), record(3), barrier(1)}
			first := newRig(t, v)
			first.feed(0, elements...)
			require.Error(t, first.try())

			second := newRig(t, v, replaying(first.logBytes()), asidePosition(0, 2))
			second.now = 2345
			second.feed(0, elements...)
			second.run()
			require.Equal(t, []string{"1", "2", "3", "barrier 1"}, second.shown(0))
			require.Len(t, second.host.aside, 1)
			require.Equal(t, Position{Seq: 2}, second.host.aside[0].Position)
			require.Equal(t, record(poison).Payload, second.host.aside[0].Record)
			require.Contains(t, second.kinds(), determinant.KindSkip)

			third := newRig(t, v, replaying(second.logBytes()))
			third.feed(0, elements...)
			third.run()
			require.Equal(t, second.output(), third.output())
			require.Equal(t, second.logBytes(), third.logBytes())
			require.Empty(t, third.host.aside, "it was stored once")

			fourth := newRig(t, v, replaying(second.logBytes()), asidePosition(0, 2))
			fourth.feed(0, elements...)
			fourth.run()
			require.Equal(t, second.logBytes(), fourth.logBytes())
			require.Empty(t, fourth.host.aside)
		})
	}
}

// A record that was processed before it was set aside is processed again in a replay, although it had no choice of its own to make:
// what it drew, others have not.
func TestAPoisonedRecordThatDrewIsProcessedInAReplay(t *testing.T) {
	v := mapVertex(t, 1, choosy)
	elements := []inflightlog.Element{record(201), record(213), record(202), record(203), barrier(1)}
	first := newRig(t, v, func(c *Config) { c.SkipAt = []Poison{{ByRecord: true, Record: record(213).Payload}} })
	first.feed(0, elements...)
	first.run()
	require.Len(t, first.host.aside, 1)
	second := newRig(t, v, replaying(first.logBytes()))
	second.feed(0, elements...)
	second.run()
	require.Equal(t, first.output(), second.output())
	require.Equal(t, first.logBytes(), second.logBytes())
}

// History cannot be rewritten: others depend on what was chosen behind the record.
func TestARecordIsNotSetAsideWhereTheLogGoesOn(t *testing.T) {
	fails := false
	v := mapVertex(t, 1, func(ctx operator.Context, v uint64, emit func(uint64)) error {
		emit(uint64(ctx.Now().UnixMilli()))
		if v == 13 && fails {
			return errPoison
		}
		return nil
	})
	first := newRig(t, v, func(c *Config) { c.MaxElements = 1 })
	first.feed(0, record(13))
	first.feed(0, record(1))
	first.run()
	fails = true
	second := newRig(t, v, replaying(first.logBytes()), asidePosition(0, 0))
	second.feed(0, record(13))
	second.feed(0, record(1))
	require.ErrorIs(t, second.try(), ErrUnskippable)
	require.Empty(t, second.host.aside)
}

// Nor where a consumer is ahead: it has seen the record's effects.
func TestARecordIsNotSetAsideWhileAConsumerIsAhead(t *testing.T) {
	first := newRig(t, mapVertex(t, 1, pass))
	first.feed(0, record(1), record(13))
	first.run()
	seen := allOf(t, first.task.Outputs()[0], inflightlog.Origin)[0].End
	second := newRig(t, mapVertex(t, 1, choosy), replaying(first.logBytes()), asidePosition(0, 1))
	require.NoError(t, second.task.Outputs()[0].Subscribe(seen))
	second.feed(0, record(1), record(13))
	require.ErrorIs(t, second.try(), ErrOrphan)
	require.Empty(t, second.host.aside)
}

// The task goes on only when the record is stored.
func TestARecordThatCannotBeStoredIsNotSetAside(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, choosy), asidePosition(0, 0))
	r.host.refuse = errors.New("disk full")
	r.feed(0, record(13))
	err := r.try()
	require.ErrorIs(t, err, ErrUnskippable)
	require.ErrorIs(t, err, r.host.refuse)
	require.NotContains(t, r.kinds(), determinant.KindSkip)
}

// Any number of records may fail, one life after the other; what comes out at last is what a job without them shows, and
// can be replayed.
func TestManyPoisonedRecordsAreSetAsideOneAfterTheOther(t *testing.T) {
	v := mapVertex(t, 1, choosy)
	rapid.Check(t, func(t *rapid.T) {
		var elements []inflightlog.Element
		healthy := []string{}
		for range rapid.IntRange(1, 12).Draw(t, "records") {
			value := rapid.SampledFrom([]uint64{1, 2, 13, 14}).Draw(t, "value")
			look := rapid.SampledFrom([]uint64{0, 0, 100, 200}).Draw(t, "looks")
			elements = append(elements, record(value+look))
			if value < 10 {
				healthy = append(healthy, fmt.Sprint(value+look))
			}
		}
		batches := func() []*inflightlog.Batch {
			return batchesOf(t, inflightlog.Origin, elements, func() bool { return rapid.Bool().Draw(t, "cut") })
		}
		var log []byte
		var aside []Poison
		for {
			r := newRig(t, v, bounds(t), func(c *Config) { c.Replay, c.SkipAt = log, aside })
			for _, b := range batches() {
				r.deliver(0, b)
			}
			err := r.try()
			log = r.logBytes()
			var p *Poison
			if errors.As(err, &p) {
				aside = []Poison{*p}
				continue
			}
			require.NoError(t, err)
			var shown []string
			for _, line := range r.shown(0) {
				for _, h := range healthy {
					if line == h {
						shown = append(shown, line)
						break
					}
				}
			}
			require.GreaterOrEqual(t, len(shown), len(healthy))
			again := newRig(t, v, bounds(t), replaying(log))
			for _, b := range batches() {
				again.deliver(0, b)
			}
			again.run()
			require.Equal(t, r.output(), again.output())
			require.Equal(t, log, again.logBytes())
			return
		}
	})
}

// lateFailure fails when its timer fires.
type lateFailure struct{ curious }

func (*lateFailure) Process(ctx operator.KeyedContext[uint64], v uint64, emit func(uint64)) error {
	emit(v)
	if at, ok := ctx.EventTime(); ok {
		ctx.RegisterEventTimer(at, "")
		return nil
	}
	ctx.RegisterProcessingTimer(ctx.Now().Add(time.Millisecond), "")
	return nil
}

func (*lateFailure) Timer(_ operator.KeyedContext[uint64], _ operator.Timer, emit func(uint64)) error {
	emit(99)
	return errPoison
}

// A failure of user code that belongs to no record is the user's too, but there is nothing to set aside.
func TestAFailureInATimerIsAPoisonWithoutARecord(t *testing.T) {
	job := operator.NewJob("late")
	in := operator.From(job, "in", &script{}, numberOption)
	keyed := operator.KeyBy(in, func(v uint64) uint64 { return v }, numberOption)
	out := operator.Process(keyed, "work", func() operator.Processor[uint64, uint64, uint64] { return &lateFailure{} }, numberOption)
	operator.ForEach(operator.Rebalanced(out), "end", func(operator.Context, uint64) error { return nil })
	v := vertexOf(t, job, "work", 1)
	for _, c := range []struct {
		name string
		feed []inflightlog.Element
	}{
		{"processing time", []inflightlog.Element{record(5)}},
		{"event time", []inflightlog.Element{recordAt(5, 10), watermark(20)}},
		{"the end of the input", []inflightlog.Element{recordAt(5, 10), control(inflightlog.End)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, v)
			r.feed(0, c.feed...)
			if len(c.feed) == 1 {
				r.run()
				r.now += 10
			}
			err := r.try()
			var p *Poison
			require.ErrorAs(t, err, &p)
			require.False(t, p.Known, "no record is at fault: %v", p)
			require.Equal(t, "work", p.Operator)
			require.ErrorIs(t, err, errPoison)
			require.Equal(t, []string{"5"}, r.shown(0), "what the timer had emitted is not shown")
		})
	}
}

func TestAFailedAsyncCallIsAPoison(t *testing.T) {
	job := operator.NewJob("asking")
	in := operator.From(job, "in", &script{}, numberOption)
	out := operator.AsyncMap(in, "ask", func(context.Context, uint64) (uint64, error) { return 0, errPoison },
		operator.AsyncOptions{}, numberOption)
	operator.ForEach(operator.Rebalanced(out), "end", func(operator.Context, uint64) error { return nil })
	r := newRig(t, vertexOf(t, job, "ask", 1))
	r.feed(0, record(1))
	r.run()
	r.calls.complete(0)
	var p *Poison
	require.ErrorAs(t, r.try(), &p)
	require.Equal(t, "ask", p.Operator)
	require.False(t, p.Known)
}

// A failure of what the chain emits at a step's end belongs to no record of the step.
func TestAFailureAtAStepsEndIsAPoisonWithoutARecord(t *testing.T) {
	v := mapVertex(t, 1, pass)
	for _, e := range []inflightlog.Element{record(1), barrier(1)} {
		r := newRig(t, v, func(c *Config) {
			build := c.New
			c.New = func(rt operator.Runtime) (operator.Chain, error) {
				chain, err := build(rt)
				return failingEnd{chain}, err
			}
		})
		r.feed(0, e)
		var p *Poison
		require.ErrorAs(t, r.try(), &p)
		require.False(t, p.Known, "%v", p)
	}
}

// failingEnd is a chain whose user code fails at the end of each step.
type failingEnd struct{ operator.Chain }

func (failingEnd) StepEnd() error { return &operator.UserError{Operator: "f", Err: errPoison} }
