package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// growth has splits of sources appear while the job runs. It draws from a stream of its own: runs in which no source grows stay as they
// are.
//
// It follows the ledger by itself: from which epoch on each split is read. What the tasks did is compared with that.
type growth struct {
	world    *World
	rng      *rand.Rand
	listings []listing
	from     map[string]determinant.Epoch // by split; the first epoch in which it may be read
	opened   determinant.Epoch            // the newest epoch that a checkpoint has opened
}

// growing is a source that grows. It implements operator.Growing.
type growing struct {
	*source
	due []int // per split: the step at which it appears
}

// listing is a coordinator's question for new splits, on its way.
type listing struct {
	replica *replica
	term    int
	vertex  int
	known   []string
	ready   int
}

var errListing = errors.New("sim: the splits cannot be listed now")

func newGrowth(w *World) *growth {
	return &growth{world: w, rng: w.stream("growth"), from: map[string]determinant.Epoch{}, opened: 1}
}

// grows makes some sources growing ones: most of their splits appear later.
func (g *growth) grows(s *source) operator.Source[record] {
	if g.rng.IntN(100) >= g.world.opts.Growing {
		return s
	}
	more := &growing{source: s}
	s.splits += 1 + g.rng.IntN(4)
	at := 0
	for i := range s.splits {
		if i >= 2 || g.rng.IntN(3) > 0 {
			at += g.rng.IntN(1500)
		}
		more.due = append(more.due, at)
	}
	g.rng.Shuffle(len(more.due), func(i, j int) { more.due[i], more.due[j] = more.due[j], more.due[i] })
	return more
}

// Splits implements operator.Source.
func (s *growing) Splits(context.Context) ([]string, error) { return s.there(), nil }

// there are the splits that have appeared.
func (s *growing) there() (names []string) {
	for i, due := range s.due {
		if due <= s.world.step {
			names = append(names, splitName(i))
		}
	}
	return names
}

// DiscoveryInterval implements operator.Growing.
func (s *growing) DiscoveryInterval() time.Duration { return 3 * time.Millisecond }

// Discover implements operator.Growing: in any order, without some of those that are known, and at times not at all.
func (s *growing) Discover(_ context.Context, known []string) (splits []string, all bool, err error) {
	rng := s.world.growth.rng
	if rng.IntN(8) == 0 {
		return nil, false, errListing
	}
	splits = s.there()
	all = len(splits) == len(s.due)
	splits = slices.DeleteFunc(splits, func(name string) bool { return slices.Contains(known, name) && rng.IntN(2) == 0 })
	rng.Shuffle(len(splits), func(i, j int) { splits[i], splits[j] = splits[j], splits[i] })
	return splits, all, nil
}

func splitName(i int) string { return fmt.Sprintf("split%d", i) }

// Discover implements cluster.CoordinatorEnvironment.
func (r *replica) Discover(vertex int, known []string) {
	w := r.metadata.world
	w.growth.listings = append(w.growth.listings, listing{r, r.term, vertex, known, w.step + w.growth.rng.IntN(100)})
}

// tick asks sources for their splits, and gives coordinators the answers.
func (g *growth) tick() {
	w := g.world
	g.listings = slices.DeleteFunc(g.listings, func(l listing) bool {
		if l.ready > w.step {
			return false
		}
		if l.replica.leads && l.replica.term == l.term && !l.replica.down {
			found := cluster.Discovery{Known: len(l.known)}
			found.Splits, found.All, found.Err = w.job.Plan.Vertices[l.vertex].Growing.Discover(context.Background(), l.known)
			l.replica.coordinator.Discovered(l.vertex, found)
		}
		return true
	})
}

// begun notes the splits that are there from the start.
func (g *growth) begun(splits [][]string) {
	for _, list := range splits {
		for _, name := range list {
			g.from[name] = 1
		}
	}
}

// started takes the start of a checkpoint: its barrier opens the next epoch.
func (g *growth) started(e determinant.Epoch) { g.opened = e + 1 }

// grown takes an entry of new splits: they are read from the first epoch on that no checkpoint has opened yet.
func (g *growth) grown(e *cluster.Grow) {
	w := g.world
	if e.From != g.opened+1 {
		w.violate("growth", "%v, and epoch %d is the newest that was opened", e, g.opened)
	}
	for _, name := range e.Splits {
		if _, known := g.from[name]; known {
			w.violate("growth", "%v, and split %q is known", e, name)
		}
		g.from[name] = e.From
		w.result.Grown++
	}
}

// check goes through what the source tasks have chosen: a split is added in no epoch before its own, and before the first record of that
// epoch is read.
func (g *growth) check() {
	w := g.world
	for t := range w.job.Tasks {
		if spec := &w.job.Tasks[t]; w.job.Plan.Vertices[spec.Vertex].Source != nil {
			g.checkTask(determinant.TaskID(t), g.splits(spec))
		}
	}
}

// splits are those of a source task, by the ledger's order and what this checker knows of their epochs.
func (g *growth) splits(spec *cluster.TaskSpec) task.Splits {
	s := task.Splits{Final: 1} // that the task has ended is in its log
	view := g.world.metadata.truth.coordinator.View()
	s.Grows = len(view.Stages) > 0 && len(view.Stages[spec.Vertex]) > 0
	for i, name := range view.Splits[spec.Vertex] {
		if i%spec.Info.Parallelism == spec.Info.Index {
			s.List = append(s.List, task.Split{Identity: name, From: g.from[name]})
		}
	}
	return s
}

func (g *growth) checkTask(t determinant.TaskID, splits task.Splits) {
	w := g.world
	var dec determinant.Decoder
	var d determinant.Determinant
	log, now, mine := w.history.tasks[t].log, determinant.Epoch(1), splits.List
	for at := 0; at < len(log); {
		n, err := dec.Next(log[at:], &d)
		if err != nil {
			w.violate("log", "task %d at %d: %v", t, at, err)
			return
		}
		at += n
		due := len(mine) > 0 && mine[0].From <= now
		switch {
		case d.Kind == determinant.KindMark:
			now = d.Epoch
		case d.Kind == determinant.KindSplit && !d.Removed:
			if !due || string(d.Bytes) != mine[0].Identity {
				w.violate("growth", "task %d adds split %q in epoch %d: to be added are %v", t, d.Bytes, now, mine)
				return
			}
			mine = mine[1:]
		case d.Kind == determinant.KindSource && due:
			w.violate("growth", "task %d reads in epoch %d, and has not added %v", t, now, mine[0])
			return
		}
	}
	if len(mine) > 0 {
		w.violate("growth", "task %d has ended and not added %v", t, mine)
	}
}
