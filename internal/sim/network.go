package sim

import (
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/transport"
)

// pair is a direction between two workers.
type pair struct{ from, to determinant.WorkerID }

// link is the ordered stream of messages in one direction.
type link struct {
	queue []parcel
}

type parcel struct {
	message *transport.Message
	ready   int
}

// letter is a control message or a report on its way; letters arrive in any order.
type letter struct {
	from, to determinant.WorkerID
	control  cluster.Control
	report   cluster.Report
	ready    int
}

func (w *World) link(p pair) *link {
	l := w.links[p]
	if l == nil {
		l = &link{}
		w.links[p] = l
		w.pairs = append(w.pairs, p)
	}
	return l
}

// writeLink has a worker write its next message to some peer, itself included.
func (w *World) writeLink() {
	p, list := w.pickProcess(), w.running()
	if p == nil {
		return
	}
	first := w.rng.IntN(len(list))
	for i := range list {
		q := list[(first+i)%len(list)]
		if w.faults.isDown(p.id, q.id) {
			continue
		}
		m := p.worker.Write(q.id)
		p.checkPlanted(m)
		if m == nil {
			continue
		}
		if p.unlinked[q.id] {
			return // into the old stream, which nobody reads any more
		}
		l := w.link(pair{p.id, q.id})
		l.queue = append(l.queue, parcel{m, w.step + w.tail()})
		return
	}
}

// deliver hands some worker the next message of some link.
func (w *World) deliver() {
	if len(w.pairs) == 0 {
		return
	}
	first := w.rng.IntN(len(w.pairs))
	for i := range w.pairs {
		at := w.pairs[(first+i)%len(w.pairs)]
		l := w.links[at]
		if len(l.queue) == 0 || l.queue[0].ready > w.step {
			continue
		}
		to := w.process(at.to)
		if to != nil && (to.pausedUntil > w.step || to.unlinked[at.from] && at.from != at.to) {
			continue
		}
		m := l.queue[0].message
		l.queue = l.queue[1:]
		if to == nil {
			continue
		}
		to.worker.Receive(m)
		w.checks.received(to, m)
		return
	}
}

// deliverControl hands out control messages; more of them when many are under way, lest they pile up.
func (w *World) deliverControl() {
	for range 1 + len(w.control)/16 {
		l := take(w, &w.control)
		if l == nil {
			return
		}
		p := w.process(l.to)
		if p == nil {
			continue
		}
		if p.pausedUntil > w.step {
			l.ready = p.pausedUntil
			w.control = append(w.control, l)
			continue
		}
		p.worker.Control(l.control)
	}
}

func (w *World) deliverReport() {
	for range 1 + len(w.reports)/16 {
		if l := take(w, &w.reports); l != nil {
			w.metadata.coordinator.Report(l.report)
		}
	}
}

// take removes a letter that has arrived; nil if it finds none.
func take(w *World, list *[]*letter) *letter {
	for range 8 {
		if len(*list) == 0 {
			return nil
		}
		i := w.rng.IntN(len(*list))
		l := (*list)[i]
		if l.ready > w.step {
			continue
		}
		(*list)[i] = (*list)[len(*list)-1]
		*list = (*list)[:len(*list)-1]
		return l
	}
	return nil
}

// lose drops what a dead worker had under way: everything to it, and some of what it sent, the last first.
func (w *World) lose(id determinant.WorkerID) {
	for _, at := range w.pairs {
		l := w.links[at]
		switch {
		case at.to == id:
			l.queue = nil
		case at.from == id && len(l.queue) > 0:
			l.queue = l.queue[:w.rng.IntN(len(l.queue)+1)]
		}
	}
	w.control = w.surviving(w.control, id)
	w.reports = w.surviving(w.reports, id)
}

func (w *World) surviving(letters []*letter, dead determinant.WorkerID) []*letter {
	kept := letters[:0]
	for _, l := range letters {
		if l.to == dead || l.from == dead && w.chance(2) {
			continue
		}
		kept = append(kept, l)
	}
	return kept
}
