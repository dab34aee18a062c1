package task

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
)

// quietHost keeps nothing.
type quietHost struct{ recordingHost }

func (*quietHost) Sealed(determinant.ChannelID, *inflightlog.Batch)  {}
func (*quietHost) Taken(determinant.ChannelID, determinant.Seq, int) {}
func (*quietHost) Snapshot(*Task, Snapshot)                          {}

// conveyor is a pass-through task whose input is delivered and whose output is taken, batch by batch.
type conveyor struct {
	*rig
	feed *inflightlog.Log
}

func newConveyor(t tester) *conveyor {
	job := operator.NewJob("pass")
	in := operator.From(job, "in", &script{}, numberOption)
	out := operator.Map(operator.Rebalanced(in), "f", func(_ operator.Context, v uint64) (uint64, error) { return v, nil }, numberOption)
	operator.ForEach(operator.Rebalanced(out), "end", func(operator.Context, uint64) error { return nil })
	c := &conveyor{
		rig:  newRig(t, vertexOf(t, job, "f", 1), func(c *Config) { c.Host = &quietHost{} }),
		feed: inflightlog.NewLog(inflightlog.Origin, inflightlog.Options{}),
	}
	must(c.feed.Subscribe(inflightlog.Origin))
	must(c.task.outs[0].Subscribe(inflightlog.Origin))
	return c
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// move puts n records through, and ends an epoch behind them so that nothing is retained.
func (c *conveyor) move(n int, payload []byte) {
	for range n {
		c.feed.Record(0, false, payload)
		c.feed.Commit()
	}
	e := c.task.epoch
	c.feed.Control(inflightlog.Element{Kind: inflightlog.Barrier, Epoch: e, Depth: determinant.Full})
	for {
		b, err := c.feed.Next(-1)
		must(err)
		if b == nil {
			break
		}
		c.feed.Grant(b.End.Next)
		c.task.Deliver(0, b, false)
		c.step()
	}
	c.step()
	c.task.outs[0].Truncate(e)
	c.log.Truncate(c.log.End())
}

// step runs the task and takes what it sends.
func (c *conveyor) step() {
	for {
		progress, err := c.task.Step()
		must(err)
		for {
			b, err := c.task.outs[0].Next(-1)
			must(err)
			if b == nil {
				break
			}
			c.task.outs[0].Grant(b.End.Next)
		}
		if !progress {
			return
		}
	}
}

// Section 14: no allocation per record in the engine. What is allocated is per batch, per step and per checkpoint.
func TestNoAllocationPerRecord(t *testing.T) {
	const records = 50_000
	c := newConveyor(t)
	payload := make([]byte, 8)
	c.move(records, payload)
	allocs := testing.AllocsPerRun(5, func() { c.move(records, payload) })
	t.Logf("%.0f allocations for %d records", allocs, records)
	require.Less(t, allocs/records, 0.01)
}

// BenchmarkPassThrough moves records through a task that does nothing with them, a step per batch of its input.
func BenchmarkPassThrough(b *testing.B) {
	for _, size := range []int{8, 100, 1000} {
		b.Run(fmt.Sprintf("record=%dB", size), func(b *testing.B) {
			const records = 10_000
			c := newConveyor(b)
			payload := make([]byte, max(8, size))
			before := c.task.steps
			b.ReportAllocs()
			for b.Loop() {
				c.move(records, payload)
			}
			b.ReportMetric(float64(b.N)*records/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(c.task.steps-before)/b.Elapsed().Seconds(), "steps/s")
		})
	}
}

// BenchmarkStep is a step of one record: what a step costs by itself.
func BenchmarkStep(b *testing.B) {
	c := newConveyor(b)
	payload := make([]byte, 8)
	const batch = 1000
	c.task.cfg.MaxElements = 1
	b.ReportAllocs()
	for b.Loop() {
		c.move(batch, payload)
	}
	b.ReportMetric(float64(b.N)*batch/b.Elapsed().Seconds(), "steps/s")
}

// BenchmarkReplay repeats a log of steps of 100 records.
func BenchmarkReplay(b *testing.B) {
	const records = 100_000
	elements := make([]inflightlog.Element, records)
	for i := range elements {
		elements[i] = record(uint64(i))
	}
	v := mapVertex(b, 1, pass)
	batches := batchesOf(b, inflightlog.Origin, elements, never)
	first := newRig(b, v, func(c *Config) { c.MaxElements = 100 })
	first.supply(0, batches)
	first.settle()
	log := first.logBytes()
	b.ReportAllocs()
	for b.Loop() {
		second := newRig(b, v, replaying(log))
		second.supply(0, batches)
		second.settle()
	}
	b.ReportMetric(float64(b.N)*records/b.Elapsed().Seconds(), "records/s")
}
