package plain

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/internal/nexmark"
)

const (
	slide = 2000 // ms between windows of q5
	panes = 5    // of a slide each, in a window
)

// bidOn is what q5 sends.
type bidOn struct{ auction, time int64 }

// hot are the auctions with most bids of a window, of one worker.
type hot struct {
	end      int64
	bids     int64
	auctions []int64
	last     bool // the worker has no more
}

// q5 counts bids per auction in panes, of which a window is made of five. What is hottest in each worker's part of a window goes to one
// goroutine, which finds the hottest of all.
func q5(p *program) error {
	send := func(out *port[bidOn], e *nexmark.Event) {
		if e.Kind == nexmark.BidKind {
			out.send(e.Bid.Auction, e.Bid.Time, bidOn{e.Bid.Auction, e.Bid.Time})
		}
	}
	found := make(chan hot, 64)
	var finding sync.WaitGroup
	finding.Go(func() { p.hottest(found) })
	err := keyed(p, send, func(int) (func([]bidOn), func(int64)) {
		c := counts{panes: map[int64]map[int64]int64{}, found: found, fired: math.MaxInt64}
		return c.take, c.reached
	})
	close(found)
	finding.Wait()
	return err
}

// counts are those of a worker of q5.
type counts struct {
	panes map[int64]map[int64]int64 // bids by the pane's start and the auction
	pane  map[int64]int64           // the one used last
	start int64                     // of pane
	fired int64                     // windows that end by then are done
	found chan<- hot
}

func (c *counts) take(records []bidOn) {
	for _, r := range records {
		if start := r.time - r.time%slide; c.pane == nil || start != c.start {
			if c.pane = c.panes[start]; c.pane == nil {
				c.pane = map[int64]int64{}
				c.panes[start] = c.pane
			}
			c.start = start
			c.fired = min(c.fired, start)
		}
		c.pane[r.auction]++
	}
}

// reached fires the windows that end by now.
func (c *counts) reached(now int64) {
	for len(c.panes) > 0 && c.fired+slide <= now {
		end := c.fired + slide
		c.fire(end)
		if gone := end - panes*slide; c.panes[gone] != nil {
			if c.start == gone {
				c.pane = nil
			}
			delete(c.panes, gone)
		}
		c.fired = end
	}
	if now == endOfTime {
		c.found <- hot{last: true}
	}
}

func (c *counts) fire(end int64) {
	sums := map[int64]int64{}
	for start := end - panes*slide; start < end; start += slide {
		for auction, n := range c.panes[start] {
			sums[auction] += n
		}
	}
	h := hot{end: end}
	for auction, n := range sums {
		if n > h.bids {
			h.bids, h.auctions = n, h.auctions[:0]
		}
		if n == h.bids {
			h.auctions = append(h.auctions, auction)
		}
	}
	if h.bids > 0 {
		c.found <- h
	}
}

// hottest shows the hottest auctions of all workers. A worker that has no bid in a window says nothing of it, so rows are shown when all
// is over: there are few, a handful per two seconds of event time.
func (p *program) hottest(found <-chan hot) {
	w, windows := p.writer(0), map[int64]*hot{}
	over := 0
	for h := range found {
		if h.last {
			over++
			continue
		}
		best := windows[h.end]
		switch {
		case best == nil || h.bids > best.bids:
			windows[h.end] = &h
		case h.bids == best.bids:
			best.auctions = append(best.auctions, h.auctions...)
		}
	}
	if over < p.Parallelism {
		return // interrupted
	}
	for _, end := range slices.Sorted(maps.Keys(windows)) {
		h := windows[end]
		for _, auction := range h.auctions {
			w.put(row(w.buf[:0]).number("auction", auction).number("num", h.bids).number("starttime", end-panes*slide).
				number("endtime", end))
		}
	}
}

// highest are the highest bids of a window among those that one source reads, and the bids of its first moment, which the window before
// shows too if they are as high as its own.
type highest struct {
	start int64
	bids  []nexmark.Bid
	first []nexmark.Bid
}

func (h *highest) add(b *nexmark.Bid) {
	if b.Time == h.start {
		h.first = append(h.first, *b)
	}
	switch {
	case len(h.bids) == 0 || b.Price > h.bids[0].Price:
		h.bids = append(h.bids[:0], *b)
	case b.Price == h.bids[0].Price:
		h.bids = append(h.bids, *b)
	}
}

// q7 finds the highest bids of each source's part of a window, and hands them to one goroutine.
func q7(p *program) error {
	found := make(chan *highest, 64)
	var finding sync.WaitGroup
	finding.Go(func() { p.highest(found) })
	err := p.sources(func(i int) error {
		h := &highest{start: -1}
		err := p.read(i, func(events []nexmark.Event) {
			for j := range events {
				if events[j].Kind != nexmark.BidKind {
					continue
				}
				b := &events[j].Bid
				if b.Time >= h.start+tumble || h.start < 0 {
					if h.start >= 0 {
						found <- h
					}
					h = &highest{start: b.Time - b.Time%tumble}
				}
				h.add(b)
			}
		})
		if h.start >= 0 {
			found <- h
		}
		return err
	})
	close(found)
	finding.Wait()
	return err
}

// highest shows the rows when all parts have come, since a window's last may be those of the moment after it. There are few.
func (p *program) highest(found <-chan *highest) {
	w, windows := p.writer(0), map[int64]*highest{}
	for h := range found {
		all := windows[h.start]
		if all == nil {
			windows[h.start] = h
			continue
		}
		all.first = append(all.first, h.first...)
		switch price := h.bids[0].Price - all.bids[0].Price; {
		case price > 0:
			all.bids = h.bids
		case price == 0:
			all.bids = append(all.bids, h.bids...)
		}
	}
	if p.ctx.Err() != nil {
		return
	}
	for _, start := range slices.Sorted(maps.Keys(windows)) {
		h := windows[start]
		for i := range h.bids {
			w.bid(&h.bids[i])
		}
		if next := windows[start+tumble]; next != nil {
			for i := range next.first {
				if next.first[i].Price == h.bids[0].Price {
					w.bid(&next.first[i])
				}
			}
		}
	}
}

// q12 counts bids per bidder in windows of the clock, which is looked at once per batch.
func q12(p *program) error {
	send := func(out *port[int64], e *nexmark.Event) {
		if e.Kind == nexmark.BidKind {
			out.send(e.Bid.Bidder, e.Bid.Time, e.Bid.Bidder)
		}
	}
	length := p.Window.Milliseconds()
	return keyed(p, send, func(i int) (func([]int64), func(int64)) {
		w, bids, start := p.writer(i), map[int64]int64{}, int64(0)
		show := func() {
			for bidder, n := range bids {
				w.put(row(w.buf[:0]).number("bidder", bidder).number("bid_count", n).number("starttime", start).
					number("endtime", start+length))
			}
			clear(bids)
		}
		take := func(bidders []int64) {
			now := time.Now().UnixMilli()
			if s := now - now%length; s != start {
				show()
				start = s
			}
			for _, bidder := range bidders {
				bids[bidder]++
			}
		}
		return take, func(now int64) {
			if now == endOfTime {
				show()
			}
		}
	})
}
