package sim

import (
	"fmt"
	"strings"

	"github.com/understudy-stream/understudy/determinant"
)

// stuck describes a job that does not end.
func (w *World) stuck() string {
	var b strings.Builder
	m := w.metadata
	fmt.Fprintf(&b, "the job does not end: checkpoint %d, under way %v, %d proposals, term %d", m.checkpoint, m.saving, len(m.proposals), m.term)
	for _, r := range m.replicas {
		fmt.Fprintf(&b, "\n  coordinator %d: down %v, leads %v, term %d, applied %d of %d, waits %q", r.number, r.down, r.leads, r.term, r.applied, len(m.entries), r.waiting)
	}
	for t, place := range m.places {
		fmt.Fprintf(&b, "\n  %v", place)
		p := w.process(place.Worker)
		if p == nil {
			b.WriteString(": no such process")
			continue
		}
		h := p.worker.Task(determinant.TaskID(t))
		if h == nil {
			fmt.Fprintf(&b, ": not running; entry %d, %d to apply, %d disk jobs", p.index, len(p.inbox), len(p.disk))
			continue
		}
		fmt.Fprintf(&b, ": #%d, %d records, replaying %v, ahead %v, ended %v", h.Incarnation(), h.Records(), h.Replaying(), h.Ahead(), h.Ended())
		l := w.history.lives[h]
		for i := range w.job.Tasks[t].Inputs {
			fmt.Fprintf(&b, "; input %d taken %d of %d", i, h.Taken(i), l.next[i])
		}
		for i, o := range h.Outputs() {
			fmt.Fprintf(&b, "; output %d sealed %v unsent %d outstanding %d subscribed %v", i, o.Sealed(), o.Unsent(), o.Outstanding(), o.Subscribed())
		}
	}
	for _, at := range w.pairs {
		c := w.connections[at]
		for i := range c.ends {
			if e := &c.ends[i]; len(e.queue) > 0 || !e.open {
				fmt.Fprintf(&b, "\n  connection %v end %d: %d messages, stream %d, open %v", at, i, len(e.queue), e.stream, e.open)
			}
		}
	}
	return b.String()
}
