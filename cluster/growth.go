package cluster

import (
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/task"
)

// Grow adds splits to a source that grows, or says that it grows no more.
type Grow struct {
	Vertex int
	Known  int      // how many splits it had when these were found. Otherwise the entry comes too late, and has no effect
	Splits []string // new ones, in order
	Final  bool     // none come after them
	// From is the first epoch in which they are read. It is set when the entry takes effect.
	From determinant.Epoch
}

// String says what comes when.
func (g *Grow) String() string {
	text := fmt.Sprintf("vertex %d has %d splits from epoch %d on", g.Vertex, g.Known+len(g.Splits), g.From)
	if g.Final {
		text += ", and gets no more"
	}
	return text
}

// Stage is how many splits a source has from an epoch on.
type Stage struct {
	From  determinant.Epoch
	Count int
	Final bool // it gets no more
}

// stagesOf are the first stages of each vertex: nil for what does not grow.
func stagesOf(job *Job, splits [][]string) [][]Stage {
	var stages [][]Stage
	for v := range job.Plan.Vertices {
		if v >= len(splits) || job.Plan.Vertices[v].Growing == nil {
			continue
		}
		if stages == nil {
			stages = make([][]Stage, len(job.Plan.Vertices))
		}
		stages[v] = []Stage{{From: 1, Count: len(splits[v])}}
	}
	return stages
}

// stages are those of vertex v, from the epoch after the last completed checkpoint on; empty for one that does not grow.
func (v *View) stages(vertex int) []Stage {
	if vertex >= len(v.Stages) {
		return nil
	}
	return v.Stages[vertex]
}

// grows tells whether a vertex may get more splits than the ledger has.
func (v *View) grows(vertex int) bool {
	stages := v.stages(vertex)
	return len(stages) > 0 && !stages[len(stages)-1].Final
}

// maturing tells whether some split waits for an epoch that no checkpoint has opened yet.
func (v *View) maturing() bool {
	for vertex := range v.Stages {
		if stages := v.Stages[vertex]; len(stages) > 0 && stages[len(stages)-1].From > v.newest()+1 {
			return true
		}
	}
	return false
}

// admits tells whether g still fits what the ledger says.
func (v *View) admits(g *Grow) bool {
	if !v.grows(g.Vertex) || g.Known != len(v.Splits[g.Vertex]) || len(g.Splits) == 0 && !g.Final {
		return false
	}
	return len(news(v.Splits[g.Vertex], g.Splits)) == len(g.Splits)
}

// grown takes an entry that took effect.
//
// Invariant: the splits that a vertex has stay as and where they are; new ones come behind them, and are read from an epoch on that
// no checkpoint had opened when the entry was committed: no task has made a choice in it.
func (v *View) grown(g *Grow, mutations mutation.Set) {
	all, stages := v.Splits[g.Vertex], v.Stages[g.Vertex]
	if g.Known != len(all) || g.From <= v.newest()+1 || g.From < stages[len(stages)-1].From {
		panic(fmt.Sprintf("cluster: assertion failed: %v, when it has %d, in stages %v, and checkpoint %d was started", g, len(all), stages, v.newest()))
	}
	all = slices.Concat(all, g.Splits)
	if mutations.Has(mutation.SplitsSorted) {
		slices.Sort(all)
	}
	v.Splits, v.Stages = slices.Clone(v.Splits), slices.Clone(v.Stages)
	v.Splits[g.Vertex] = all
	v.Stages[g.Vertex] = append(slices.Clone(stages), Stage{From: g.From, Count: len(all), Final: g.Final})
}

// settle forgets the stages that no task can go back to: a checkpoint was completed.
func (v *View) settle() {
	for vertex, stages := range v.Stages {
		old := 0
		for old+1 < len(stages) && stages[old+1].From <= v.committed()+1 {
			old++
		}
		if old > 0 {
			v.Stages = slices.Clone(v.Stages)
			v.Stages[vertex] = slices.Clone(stages[old:])
		}
	}
}

// splitsOf is what a source task reads, and from which epochs on.
func (v *View) splitsOf(job *Job, t *TaskSpec) task.Splits {
	if t.Vertex >= len(v.Splits) {
		return task.Splits{Final: 1}
	}
	stages := v.stages(t.Vertex)
	s := task.Splits{Final: 1}
	if len(stages) > 0 {
		s.Final, s.Grows = 0, true
		if last := stages[len(stages)-1]; last.Final {
			s.Final = last.From
		}
	}
	from := determinant.Epoch(1) // what the first stage has is there in every epoch that a task can be in
	job.share(t, v.Splits[t.Vertex], func(i int, identity string) {
		for len(stages) > 0 && i >= stages[0].Count {
			stages = stages[1:]
			from = stages[0].From // Invariant: the last stage counts all splits
		}
		s.List = append(s.List, task.Split{Identity: identity, From: from})
	})
	return s
}

// news are the splits that are found and not among those that are known, each once.
func news(known, found []string) []string {
	have := make(map[string]bool, len(known)+len(found))
	for _, identity := range known {
		have[identity] = true
	}
	var fresh []string
	for _, identity := range found {
		if !have[identity] {
			have[identity] = true
			fresh = append(fresh, identity)
		}
	}
	return fresh
}

// grown gives the tasks of a source what is new to them. w.mu is held.
func (w *Worker) grown(g *Grow) {
	w.mu.view.grown(g, w.opts.Mutations)
	for t := range w.tasks {
		if h := w.tasks[t].Load(); h != nil && w.job.Tasks[t].Vertex == g.Vertex {
			w.grow(h)
		}
	}
}

// grow tells a source task what the ledger says of its splits now. w.mu is held.
func (w *Worker) grow(h *hosted) {
	t := h.task.ID()
	if spec := &w.job.Tasks[t]; len(w.mu.view.stages(spec.Vertex)) > 0 {
		h.task.Grow(w.splitsOf(spec, &w.mu.view, h.inc))
		w.env.WakeTask(t)
	}
}

// splitsOf gives a source task its splits. A share that grew with a new life, as under the mutation SplitMoves, would be
// read by two tasks.
func (w *Worker) splitsOf(t *TaskSpec, v *View, inc determinant.Incarnation) task.Splits {
	share := v.splitsOf(w.job, t)
	if inc > 1 && w.opts.Mutations.Has(mutation.SplitMoves) && len(share.List) > 0 {
		next := *t
		next.Info.Index = (t.Info.Index + 1) % t.Info.Parallelism
		share.List = append(share.List, v.splitsOf(w.job, &next).List...)
	}
	if w.opts.Mutations.Has(mutation.SplitsAtOnce) {
		for i := range share.List {
			share.List[i].From = 1
		}
	}
	return share
}
