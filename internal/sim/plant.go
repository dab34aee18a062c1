package sim

import (
	"slices"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/transport"
)

// plantedPair is a choice of one task and a choice of another that was made on it.
type plantedPair struct {
	up, down       determinant.TaskID
	upEnd, downEnd determinant.LogOffset
}

// plant is called while the worker captures its logs for a message. Tasks here run only between messages, so it does by hand
// what a goroutine may do: a task makes a choice, and another one, downstream, makes one on it. What the choices are does
// not matter, since the run ends with this message.
func (p *process) plant() {
	w := p.world
	if p.planted != nil || !w.chance(2) {
		return
	}
	logs := p.worker.Logs()
	for down := range w.job.Tasks {
		id := determinant.TaskID(down)
		for _, up := range w.job.Topology.Upstream(id, determinant.Full) {
			if p.worker.Task(id) == nil || p.worker.Task(up) == nil || slices.Contains(w.job.Topology.Sinks, id) {
				continue
			}
			p.planted = &plantedPair{up: up, down: id}
			p.planted.upEnd = logs.Log(up).Append([]byte{0})
			p.planted.downEnd = logs.Log(id).Append([]byte{0})
			return
		}
	}
}

// checkPlanted checks that a message does not carry the second choice without the first.
func (p *process) checkPlanted(m *transport.Message) {
	if p.planted == nil {
		return
	}
	pl, w := p.planted, p.world
	w.over = true
	if m == nil {
		return
	}
	ends := w.newVector()
	err := causal.DecodeDelta(m.Delta, func(t determinant.TaskID, from determinant.LogOffset, _ bool, b []byte) error {
		ends[t] = from + determinant.LogOffset(len(b))
		return nil
	})
	if err != nil {
		w.violate("closure", "worker %d: %v", p.id, err)
	}
	if ends[pl.down] >= pl.downEnd && ends[pl.up] < pl.upEnd {
		w.violate("closure", "worker %d sends %d of log %d, which was chosen on %d of log %d, of which it sends %d",
			p.id, pl.downEnd, pl.down, pl.upEnd, pl.up, ends[pl.up])
	}
}
