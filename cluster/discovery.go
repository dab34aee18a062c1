package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/understudy-stream/understudy/checkpoint"
)

// Bounds of looking for new splits.
const (
	discoveryTimeout = 30 * time.Second // of one listing
	maxGrowth        = 1 << 20          // bytes of the identities that one entry adds; the rest comes with the next listing
)

// Discovery is what a source that grows answers when its splits are listed again.
type Discovery struct {
	Known  int // how many splits the ledger had when it was asked
	Splits []string
	All    bool // no more will come
	Err    error
}

// discovery is what the coordinator knows of one source that grows. It is no part of what is replicated: another leader asks
// anew.
type discovery struct {
	timed bool  // a Tick came since it leads
	next  int64 // milliseconds; when it is asked next
	asked bool  // it has not answered yet
	since int64 // when it was asked
	fault string
}

// discover has the splits of each source listed again for which it is time, by whoever can wait for that, and has a checkpoint
// taken if there are some that only come into force with its barrier.
func (c *Coordinator) discover() {
	if c.finished {
		return
	}
	for v := range c.view.Stages {
		if !c.view.grows(v) {
			continue
		}
		d, source := &c.discoveries[v], c.job.Plan.Vertices[v].Growing
		switch {
		case source == nil && c.now < d.next:
		case source == nil: // the job was started again with a source that does not grow
			d.next = c.now + discoveryTimeout.Milliseconds() // a proposal may be lost
			c.ledger.Propose(Entry{Grow: &Grow{Vertex: v, Known: len(c.view.Splits[v]), Final: true}})
		case !d.timed:
			d.timed, d.next = true, c.now+source.DiscoveryInterval().Milliseconds()
		case d.asked && c.now-d.since > 2*discoveryTimeout.Milliseconds():
			d.fault = fmt.Sprintf("it has not answered for %d s", (c.now-d.since)/10_000*10)
		case !d.asked && c.now >= d.next && !c.view.maturing():
			d.asked, d.since = true, c.now
			c.env.Discover(v, c.view.Splits[v])
		}
	}
	if c.view.maturing() {
		c.checkpoints(checkpoint.Request{})
	}
}

// Discovered takes what a source has answered that the environment was to ask. Vertex was an argument of Discover.
func (c *Coordinator) Discovered(vertex int, found Discovery) {
	d := &c.discoveries[vertex]
	source := c.job.Plan.Vertices[vertex].Growing
	if !d.asked || source == nil {
		return
	}
	*d = discovery{timed: true, next: c.now + source.DiscoveryInterval().Milliseconds()}
	if found.Err != nil {
		d.fault = found.Err.Error()
		return
	}
	if found.Known != len(c.view.Splits[vertex]) || c.finished {
		return // it was asked before others became known
	}
	g := Grow{Vertex: vertex, Known: found.Known, Splits: news(c.view.Splits[vertex], found.Splits), Final: found.All}
	size := 0
	for i, identity := range g.Splits {
		if size += len(identity); size > maxGrowth && i > 0 {
			g.Splits, g.Final, d.next = g.Splits[:i], false, c.now
			break
		}
	}
	if len(g.Splits) > 0 || g.Final {
		c.ledger.Propose(Entry{Grow: &g})
	}
}

// Undiscovered says of which sources the splits cannot be listed again, and why.
func (c *Coordinator) Undiscovered() []string {
	var why []string
	for v := range c.discoveries {
		if fault := c.discoveries[v].fault; fault != "" && c.view.grows(v) {
			why = append(why, fmt.Sprintf("source %q cannot tell whether it has new splits: %s", c.job.Plan.Vertices[v].Name, fault))
		}
	}
	return why
}

// grown takes an entry that adds splits. It comes into force with the next checkpoint that is started.
func (c *Coordinator) grown(e Entry) {
	if !c.view.admits(e.Grow) {
		return
	}
	g := *e.Grow
	g.From = c.view.newest() + 2
	c.view.grown(&g, c.opts.Mutations)
	e.Grow = &g
	c.announce(e)
}

// discoverSplits lists the splits of a source again.
func discoverSplits(ctx context.Context, job *Job, vertex int, known []string) Discovery {
	ctx, cancel := context.WithTimeoutCause(ctx, discoveryTimeout, fmt.Errorf("cluster: %w after %v", errUnlisted, discoveryTimeout))
	defer cancel()
	d := Discovery{Known: len(known)}
	d.Splits, d.All, d.Err = job.Plan.Vertices[vertex].Growing.Discover(ctx, known)
	if cause := context.Cause(ctx); d.Err != nil && cause != nil && !errors.Is(d.Err, cause) {
		d.Err = fmt.Errorf("%w: %w", cause, d.Err)
	}
	return d
}

var errUnlisted = errors.New("its splits were not listed")

// discovered gives the coordinator what a source has answered, and logs when it cannot tell, and when it can again.
func discovered(c *Coordinator, log *slog.Logger, vertex int, found Discovery) {
	before := c.Undiscovered()
	c.Discovered(vertex, found)
	name := c.job.Plan.Vertices[vertex].Name
	switch after := c.Undiscovered(); {
	case len(after) > len(before):
		log.Warn("the splits of a source cannot be listed again", "source", name, "error", found.Err)
	case len(after) < len(before):
		log.Info("the splits of a source can be listed again", "source", name)
	}
}

// Discover lists the splits of a source again, on a goroutine of its own. Part of CoordinatorEnvironment.
func (n *coordinatorNode) Discover(vertex int, known []string) {
	tenure := n.tenure
	n.serve.Go(func() {
		found := discoverSplits(n.ctx, n.job, vertex, known)
		n.events.post(func() {
			if n.tenure == tenure && n.leading {
				discovered(n.rep.coord, n.opts.Logger, vertex, found)
			}
		})
	})
}

// Discover lists the splits of a source again, on a goroutine of its own.
func (lc *localCoordinator) Discover(vertex int, known []string) {
	l := (*Local)(lc)
	l.listing.Go(func() {
		found := discoverSplits(l.ctx, l.job, vertex, known)
		l.do(func() { discovered(l.coord, l.opts.Logger, vertex, found) })
	})
}
