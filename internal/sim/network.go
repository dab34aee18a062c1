package sim

import (
	"slices"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/transport"
)

// pair names two workers; low is less than high, or equal to it for the way of a worker to itself.
type pair struct{ low, high determinant.WorkerID }

func pairOf(a, b determinant.WorkerID) pair { return pair{min(a, b), max(a, b)} }

// connection is what two workers send one another: one ordered stream in each direction. Both directions break together,
// and each end learns of it in its own time: what it writes until then is lost. When the connection is made again both
// ends begin a new stream, each in its own time too, by Worker.Relink.
type connection struct {
	pair   pair
	ends   [2]end // of low and of high; a worker's way to itself has the first alone
	newest int    // number of the stream that was made last
	until  int    // the network between the two is down before this step
}

// end is one worker's side of a connection.
type end struct {
	stream int      // that the worker reads and writes; 0: none yet
	open   bool     // as far as the worker knows
	notice int      // step at which it learns that its stream broke; 0: it does not
	begin  int      // step at which it begins stream next; 0: it does not
	next   int      // number of that stream
	lost   int      // what is sent to this end on streams up to this number gets lost
	queue  []parcel // on its way to this end
}

// parcel is a message on its way.
type parcel struct {
	message *transport.Message
	stream  int
	ready   int
}

func (c *connection) end(id determinant.WorkerID) *end {
	if id == c.pair.low {
		return &c.ends[0]
	}
	return &c.ends[1]
}

// other is the worker at the far end.
func (c *connection) other(id determinant.WorkerID) determinant.WorkerID {
	if id == c.pair.low {
		return c.pair.high
	}
	return c.pair.low
}

// connection finds or makes the connection of two workers. In a world without a mesh it is there at once, as in one
// process, and nobody begins it.
func (w *World) connection(a, b determinant.WorkerID) *connection {
	at := pairOf(a, b)
	c := w.connections[at]
	if c == nil {
		c = &connection{pair: at}
		if a == b || !w.plan.mesh {
			c.newest = 1
			for i := range c.ends {
				c.ends[i].stream, c.ends[i].open = 1, true
			}
		} else {
			c.until = w.step + w.tail()
			w.unsettled = append(w.unsettled, c)
		}
		w.connections[at] = c
		w.pairs = append(w.pairs, at)
	}
	return c
}

// writeLink has a worker write its next message to some peer, itself included.
func (w *World) writeLink() {
	p, list := w.pickProcess(), w.ready()
	if p == nil {
		return
	}
	first := w.rng.IntN(len(list))
	for i := range list {
		q := list[(first+i)%len(list)]
		c := w.connection(p.id, q.id)
		from := c.end(p.id)
		if !from.open {
			continue
		}
		m := p.worker.Write(q.id, nil)
		p.checkPlanted(m)
		if m == nil {
			continue
		}
		to := c.end(q.id)
		if to.lost < from.stream {
			if p != q {
				m = w.carryMessage(m)
			}
			to.queue = append(to.queue, parcel{m, from.stream, w.step + w.tail()})
		}
		return
	}
}

// deliver hands some worker the next message of some stream.
func (w *World) deliver() {
	if len(w.pairs) == 0 {
		return
	}
	first := w.rng.IntN(len(w.pairs))
	for i := range w.pairs {
		c := w.connections[w.pairs[(first+i)%len(w.pairs)]]
		for _, id := range [...]determinant.WorkerID{c.pair.low, c.pair.high} {
			if w.receive(c, id) {
				return
			}
		}
	}
}

// receive hands a worker the next message of a connection, if one has arrived.
func (w *World) receive(c *connection, id determinant.WorkerID) bool {
	to := c.end(id)
	for len(to.queue) > 0 && to.queue[0].stream < to.stream {
		to.queue = to.queue[1:] // of a stream that this end has given up
	}
	if len(to.queue) == 0 || to.queue[0].ready > w.step || !to.open || to.queue[0].stream > to.stream {
		return false
	}
	p := w.process(id)
	if p != nil && p.pausedUntil > w.step {
		return false
	}
	m := to.queue[0].message
	to.queue = to.queue[1:]
	if p == nil {
		return false
	}
	w.checks.arrives(p, m)
	p.worker.Receive(m)
	w.checks.received(p, m)
	return true
}

// breakLink breaks a connection, or one direction of it: towards its end i; -1 is both. Of what is under way some of the
// first messages still arrive. Each end learns of it in its own time; what has not arrived by then is lost.
func (w *World) breakLink(c *connection, i int) {
	for j := range c.ends {
		e := &c.ends[j]
		if i < 0 || i == j {
			e.lost = c.newest
			e.queue = e.queue[:w.rng.IntN(len(e.queue)+1)]
		}
		w.willNotice(c, j, 300)
		if e.begin > 0 && w.chance(2) {
			e.begin = 0 // the stream that it was about to begin is broken already
		}
	}
}

// willNotice has an end learn within some steps that its stream is broken.
func (w *World) willNotice(c *connection, i, within int) {
	e := &c.ends[i]
	if at := w.step + 1 + w.rng.IntN(within); e.notice == 0 || e.notice > at {
		e.notice = at
	}
	if !slices.Contains(w.unsettled, c) {
		w.unsettled = append(w.unsettled, c)
	}
}

// mend lets ends learn that their stream broke, and makes connections again.
func (w *World) mend() {
	w.unsettled = slices.DeleteFunc(w.unsettled, w.mendOne)
}

// mendOne tells whether nothing more is going to happen with a connection.
func (w *World) mendOne(c *connection) (settled bool) {
	low, high := w.process(c.pair.low), w.process(c.pair.high)
	settled = true
	for i, p := range [...]*process{low, high} {
		e := &c.ends[i]
		if p != nil && p.pausedUntil <= w.step {
			w.mendEnd(c, i, p)
		}
		settled = settled && (p == nil || e.notice == 0 && e.begin == 0)
	}
	if low == nil || high == nil {
		return settled
	}
	// The end with the greater id dials; the other may still think that the old stream is whole.
	dials := &c.ends[1]
	if !dials.open && dials.begin == 0 && c.until <= w.step && low.pausedUntil <= w.step && high.pausedUntil <= w.step {
		c.newest++
		for i := range c.ends {
			c.ends[i].begin, c.ends[i].next = w.step+1+w.rng.IntN(40), c.newest
		}
	}
	return settled && c.ends[0].open && c.ends[1].open
}

// mendEnd lets one end learn what it is due to.
func (w *World) mendEnd(c *connection, i int, p *process) {
	e, far := &c.ends[i], &c.ends[1-i]
	if e.begin > 0 && e.begin <= w.step {
		e.begin, e.stream, e.open = 0, e.next, true
		switch {
		case e.lost < e.stream && far.lost < e.stream:
			e.notice = 0 // what it was about to learn is of the former stream
		case e.notice == 0:
			w.willNotice(c, i, 300) // the stream broke before it began here, and the word of that came too early
		}
		w.result.Relinks++
		w.trace("worker %d begins stream %d with worker %d", p.id, e.stream, c.other(p.id))
		p.worker.Relink(c.other(p.id))
		return
	}
	if e.notice == 0 || e.notice > w.step {
		return
	}
	e.notice = 0
	if !e.open {
		return
	}
	w.trace("worker %d sees that stream %d with worker %d is broken", p.id, e.stream, c.other(p.id))
	e.open, e.lost, far.lost = false, max(e.lost, e.stream), max(far.lost, e.stream)
	if far.open && far.stream == e.stream {
		w.willNotice(c, 1-i, 300)
	}
}

// lose drops what a dead worker had under way: everything to it, and some of what it sent, the last first.
func (w *World) lose(id determinant.WorkerID) {
	w.pairs = slices.DeleteFunc(w.pairs, func(at pair) bool {
		c := w.connections[at]
		if at.low != id && at.high != id {
			return false
		}
		peer := c.other(id)
		if w.process(peer) == nil {
			delete(w.connections, at)
			return true
		}
		i := 0
		if peer == at.high {
			i = 1
		}
		to := &c.ends[i]
		to.lost, to.queue = c.newest, to.queue[:w.rng.IntN(len(to.queue)+1)]
		c.ends[1-i].lost, c.ends[1-i].queue = c.newest, nil
		if w.plan.mesh {
			w.willNotice(c, i, 300)
		}
		return false
	})
	w.letters = slices.DeleteFunc(w.letters, func(l *letter) bool {
		return l.to == id || l.from == id && w.chance(2)
	})
}

// letter is a control message between workers. It is sent again while the network between the two is down, until it arrives;
// letters arrive in any order.
type letter struct {
	from, to determinant.WorkerID
	control  cluster.Control
	ready    int
}

// deliverLetters hands out control messages between workers; more of them when many are under way, lest they pile up.
func (w *World) deliverLetters() {
	for range 1 + len(w.letters)/16 {
		l := take(w, &w.letters, func(l *letter) bool {
			p := w.process(l.to)
			return l.ready <= w.step && (p == nil || p.pausedUntil <= w.step) &&
				(l.from == l.to || w.process(l.from) == nil || w.connection(l.from, l.to).until <= w.step)
		})
		if l == nil {
			return
		}
		if p := w.process(l.to); p != nil {
			p.worker.Control(carry(w, l.control))
		}
	}
}

// take removes an item that is ready, one of those that the seed picks; the zero value if it finds none.
func take[T any](w *World, list *[]T, ready func(T) bool) (none T) {
	for range 8 {
		if len(*list) == 0 {
			return none
		}
		i := w.rng.IntN(len(*list))
		l := (*list)[i]
		if !ready(l) {
			continue
		}
		(*list)[i] = (*list)[len(*list)-1]
		*list = (*list)[:len(*list)-1]
		return l
	}
	return none
}
