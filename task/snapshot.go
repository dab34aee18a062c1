package task

import (
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
)

// snapshot freezes the task's state at the barrier that ended epoch e. It costs what has changed, not what there is, but for single values: each
// table hands over what is dirty, or copies it if it is little, and goes on with nothing dirty.
//
// Invariant: the log offset is that of epoch e+1's mark, so a replay from here begins with delta coding restarted.
func (t *Task) snapshot(e determinant.Epoch) Snapshot {
	m := checkpoint.Meta{
		Task: t.cfg.ID, Incarnation: t.cfg.Incarnation, Epoch: e,
		Mode: t.mode, Depth: t.depth,
		Log: t.current().Offset(), Time: t.lastTime, Watermark: t.inWM, Ended: t.ended, Records: t.taken,
	}
	for _, in := range t.in {
		m.Inputs = append(m.Inputs, determinant.Cursor{Next: in.next, Epoch: e + 1})
		m.InputWatermarks = append(m.InputWatermarks, in.watermark)
		m.InputIdle = append(m.InputIdle, in.idle)
		m.InputEnded = append(m.InputEnded, in.ended)
	}
	for _, o := range t.outs {
		m.Outputs = append(m.Outputs, o.End())
	}
	s := Snapshot{Meta: m, Freezes: t.freezer.Freeze(e)}
	s.Meta.State = s.State
	return s
}
