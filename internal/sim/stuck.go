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
	fmt.Fprintf(&b, "the job does not end: checkpoint %d, under way %v, %d proposals, waiting %q", m.checkpoint, m.saving, len(m.proposals), m.waiting)
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
		if n := len(w.links[at].queue); n > 0 {
			fmt.Fprintf(&b, "\n  link %d to %d: %d messages", at.from, at.to, n)
		}
	}
	return b.String()
}
