package sim

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// checkEnd judges a job that has ended.
func (w *World) checkEnd() {
	w.checks.sweep()
	w.checkIDs()
	w.checkSettled()
	w.modes.check()
	if !w.modes.left {
		w.checkTime()
		w.growth.check()
		w.replay()
	}
}

// checkIDs counts the visible records by hand.
func (w *World) checkIDs() {
	seen := map[uint64]int{}
	for t := range w.job.Tasks {
		for _, l := range w.visible(t) {
			if r, err := (recordCodec{}).Decode(l.bytes); err != nil {
				w.violate("lines", "store of task %d: %v", t, err)
			} else if r.ID < derived {
				seen[r.ID]++
			}
		}
	}
	for _, id := range w.want {
		n := seen[id]
		delete(seen, id)
		if n == 0 && !slices.Contains(w.aside, id%pathShift) {
			w.violate("ids", "record %d is lost", id)
		}
		if n > 1 && !w.modes.loose {
			w.violate("ids", "record %d is visible %d times", id, n)
		}
	}
	for id := range seen {
		w.violate("ids", "record %d was never sent", id)
	}
}

// checkTime checks that processing time never went back in any task.
func (w *World) checkTime() {
	for t := range w.history.tasks {
		var dec determinant.Decoder
		var d determinant.Determinant
		last := int64(0)
		log := w.history.tasks[t].log
		for at := 0; at < len(log); {
			n, err := dec.Next(log[at:], &d)
			if err != nil {
				w.violate("log", "task %d at %d: %v", t, at, err)
				return
			}
			if d.Kind == determinant.KindTime || d.Kind == determinant.KindTimers {
				if d.Time < last {
					w.violate("time", "task %d at %d: time goes back from %d to %d", t, at, last, d.Time)
				}
				last = d.Time
			}
			at += n
		}
	}
}

// replay runs every task again, without failures, on the determinants that survived, and compares what comes out with what
// is visible.
func (w *World) replay() {
	w.plan.dry, w.flaky = 1, 2
	outputs := map[determinant.ChannelID][]*inflightlog.Batch{}
	for v := range w.job.Plan.Vertices { // in topological order
		for id := range w.job.Tasks {
			spec := &w.job.Tasks[id]
			if spec.Vertex != v {
				continue
			}
			if err := w.replayTask(determinant.TaskID(id), outputs); err != nil {
				w.violate("replay", "task %d: %v", id, err)
				return
			}
			if spec.External {
				w.compare(id, outputs[spec.ExtID])
			}
		}
	}
}

// replayTask runs one task again and adds its output.
func (w *World) replayTask(id determinant.TaskID, outputs map[determinant.ChannelID][]*inflightlog.Batch) error {
	spec, full := &w.job.Tasks[id], w.history.tasks[id].log
	log := causal.NewLog(0)
	log.Append(full)
	t, err := task.New(task.Config{
		ID: id, Incarnation: 1, Info: spec.Info, Inputs: spec.Inputs, Edges: spec.Edges, External: spec.External, ExternalID: spec.ExtID,
		New: w.job.Plan.Vertices[spec.Vertex].New, Mode: w.opts.Mode, Depth: w.opts.Depth, Meta: checkpoint.Meta{Task: id},
		Log: log, Replay: full, Clock: func() int64 { return operator.MinTime }, Entropy: func() uint64 { return 0 },
		Calls: nobody{}, Host: nobody{},
	})
	if err != nil {
		return err
	}
	t.Grow(w.growth.splits(spec))
	for i, in := range spec.Inputs {
		for _, b := range outputs[in.Channel] {
			t.Deliver(i, b, false)
		}
	}
	for idle := 0; idle < 3; {
		progress, err := t.Step()
		if err != nil {
			return err
		}
		if idle++; progress {
			idle = 0
		}
	}
	if t.Replaying() || !t.Ended() {
		return fmt.Errorf("the log stops at %d of %d, ended: %v", t.Offset(), len(full), t.Ended())
	}
	if log.End() != determinant.LogOffset(len(full)) {
		return fmt.Errorf("a new choice after %d bytes of log", len(full))
	}
	for i, in := range spec.Inputs {
		if all := outputs[in.Channel]; len(all) > 0 && t.Taken(i) != all[len(all)-1].End.Next {
			return fmt.Errorf("input %d is taken up to %d of %d", i, t.Taken(i), all[len(all)-1].End.Next)
		}
	}
	channels := slices.Concat(spec.Edges...)
	if spec.External {
		channels = append(channels, spec.ExtID)
	}
	for i, o := range t.Outputs() {
		if err := o.Subscribe(inflightlog.Origin); err != nil {
			return err
		}
		for {
			b, err := o.Next(-1)
			if err != nil {
				return err
			}
			if b == nil {
				break
			}
			outputs[channels[i]] = append(outputs[channels[i]], b)
		}
	}
	return t.Close()
}

// compare compares what a store shows with what the replay gave.
func (w *World) compare(t int, batches []*inflightlog.Batch) {
	lines := w.visible(t)
	var want [][]byte
	var e inflightlog.Element
	for _, b := range batches {
		for at := 0; at < len(b.Payload); {
			n, err := inflightlog.Decode(b.Payload[at:], &e)
			if err != nil {
				w.violate("replay", "store of task %d: %v", t, err)
				return
			}
			if e.Kind == inflightlog.Record {
				want = append(want, e.Payload)
			}
			at += n
		}
	}
	for i := range max(len(want), len(lines)) {
		switch {
		case i >= len(want):
			w.violate("output", "store of task %d: line %d is %s, the execution has %d", t, i, show(lines[i].bytes), len(want))
			return
		case i >= len(lines):
			w.violate("output", "store of task %d: line %d should be %s, there are %d", t, i, show(want[i]), len(lines))
			return
		case !bytes.Equal(want[i], lines[i].bytes):
			w.violate("output", "store of task %d: line %d is %s, should be %s", t, i, show(lines[i].bytes), show(want[i]))
			return
		}
	}
}

// nobody is the host of a task that is run again: nothing comes of it. It answers no calls.
type nobody struct{}

func (nobody) Snapshot(*task.Task, task.Snapshot)                {}
func (nobody) Sealed(determinant.ChannelID, *inflightlog.Batch)  {}
func (nobody) Taken(determinant.ChannelID, determinant.Seq, int) {}
func (nobody) Replayed(*task.Task)                               {}
func (nobody) SetAside(*task.Task, task.Poison) error            { return nil }
func (nobody) Start(task.Call, func(result []byte, err error))   {}
