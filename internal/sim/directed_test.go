package sim

import (
	"flag"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// schedule is a run of events in which the absence of one rule shows, and in nothing but what a checker is there for.
type schedule struct {
	mutation mutation.Set
	options  Options
	checker  string // that sees it; empty: any
	// script makes the deed of one run: it looks at the world after each step until the deed is done, or cannot be.
	script func() func(w *World) verdict
}

// verdict is how far a script has come.
type verdict int

const (
	going verdict = iota
	did
	cannot
)

// tries is how many steps a script waits for one thing.
const tries = 3000

var schedules = []schedule{
	{
		mutation: mutation.OldRoundCounts, options: Options{Shape: "line", Workers: 5, Standbys: 1}, checker: "orphan",
		script: learnedBetweenRounds,
	},
	{
		mutation: mutation.AtLeastOnceCheckpointKept, checker: "ids",
		options: Options{Shape: "deal", Mode: determinant.AtLeastOnce, Workers: 6},
		script:  movedAcrossABarrier,
	},
	{mutation: mutation.PromotionWithoutCommit, options: Options{Shape: "line", Workers: 5}, script: lostDecision},
}

var scheduleSeeds = flag.Int("sim.schedules", 40, "how many seeds TestSchedule runs of each schedule")

// TestSchedule runs schedules without a rule, until the checker sees it, and with it: then nothing is seen.
func TestSchedule(t *testing.T) {
	for _, s := range schedules {
		t.Run(s.mutation.String(), func(t *testing.T) {
			t.Parallel()
			seen, happened := 0, 0
			for seed := range uint64(*scheduleSeeds) {
				r, v := s.run(seed, 0)
				require.Nil(t, r.Violation, "seed %d, with the rule", seed)
				if v == did {
					happened++
				}
				r, _ = s.run(seed, s.mutation)
				if r.Violation != nil && (s.checker == "" || r.Violation.Checker == s.checker) {
					if seen++; seen == 1 {
						t.Logf("seed %d: %v", seed, r.Violation)
					}
				}
			}
			t.Logf("%d of %d runs show it", seen, happened)
			require.Greater(t, happened, *scheduleSeeds/3, "the schedule must come about in many worlds")
			require.Positive(t, seen, "the checker %q must see it", s.checker)
		})
	}
}

func (s *schedule) run(seed uint64, m mutation.Set) (Result, verdict) {
	o, v := s.prepare(seed, m)
	return Run(o), *v
}

// prepare gives the options of one run, and where its verdict will be.
func (s *schedule) prepare(seed uint64, m mutation.Set) (Options, *verdict) {
	o, act, v := s.options, s.script(), new(verdict)
	o.Seed, o.Faults, o.Mutations, o.Patience = seed, -1, m, 200_000
	o.Script = func(w *World) bool { *v = act(w); return *v != going }
	return o, v
}

// hold keeps messages from one worker to another under way for another step.
func (w *World) hold(from, to *process) {
	queue := w.connection(from.id, to.id).end(to.id).queue
	for i := range queue {
		queue[i].ready = max(queue[i].ready, w.step+2)
	}
}

// answers lists a worker's answers under way about a task.
func (w *World) answers(from *process, t determinant.TaskID) []*letter {
	return slices.DeleteFunc(slices.Clone(w.letters), func(l *letter) bool {
		a := l.control.Answer
		return l.from != from.id || a == nil || !slices.ContainsFunc(a.Logs, func(c causal.Copy) bool { return c.Task == t })
	})
}

// learnedBetweenRounds: a task dies with its worker, and another worker answers for its log. Then a live neighbour hands that
// worker more of the log, which nobody else has, and dies before it has answered itself: a new round begins. What the worker
// answered in the first does not show what it has learned since.
func learnedBetweenRounds() func(*World) verdict {
	var relay, learner *process
	var known determinant.LogOffset
	phase, since, inc := 0, 0, determinant.Incarnation(0)
	return func(w *World) verdict {
		host, place := func(t determinant.TaskID) *process { return w.process(w.metadata.places[t].Worker) }, &w.metadata.places[first1]
		held := func(p *process) determinant.LogOffset { return p.worker.Logs().Log(first1).End() }
		next := func() verdict { phase, since = phase+1, w.step; return going }
		if phase > 0 && (w.step > since+tries || !relay.alive || !learner.alive) {
			return cannot
		}
		if phase > 1 {
			for _, l := range w.answers(relay, first1) {
				l.ready = w.step + 2
			}
		}
		switch phase {
		case 0:
			if relay, learner = host(second1), host(third1); settled(w) && relay != learner && relay != host(first1) && learner != host(first1) {
				return next()
			}
		case 1: // the learner falls behind
			w.hold(relay, learner)
			if inc = place.Incarnation; held(relay) > held(learner)+20 && host(first1) != nil {
				w.kill(host(first1))
				return next()
			}
		case 2: // the first round: the learner answers, the relay does not
			w.hold(relay, learner)
			applied := place.Incarnation > inc && learner.index == w.metadata.effects[len(w.metadata.effects)-1].Index
			if known = held(learner); applied && place.Worker != 0 && len(w.answers(learner, first1)) == 0 {
				return next()
			}
		case 3:
			if held(learner) > known {
				w.letters = slices.DeleteFunc(w.letters, func(l *letter) bool { return l.from == relay.id })
				w.kill(relay)
				return did
			}
		}
		return going
	}
}

// movedAcrossABarrier: a task dies when one of its consumers has acknowledged a checkpoint and the others have not got what
// was sent to them before the barrier. The next life takes its input in another order, so that some of that goes to the first, which
// has passed the barrier: its acknowledged state lacks it, and once the checkpoint is complete so does the task's log. Then the
// first one dies.
func movedAcrossABarrier() func(*World) verdict {
	const dealer, passed, late = 2, 3, 4
	phase, since, epoch := 0, 0, determinant.Epoch(0)
	return func(w *World) verdict {
		host := func(t determinant.TaskID) *process { return w.process(w.metadata.places[t].Worker) }
		a, b, c := host(dealer), host(passed), host(late)
		if phase > 0 && w.step > since+tries {
			return cannot
		}
		switch phase {
		case 0:
			if busy(w) && !w.metadata.saving && a != b && a != c {
				phase, since, epoch = 1, w.step, w.metadata.checkpoint
			}
		case 1:
			if w.metadata.checkpoint > epoch {
				phase = 0
				return going
			}
			w.hold(a, c)
			if slices.ContainsFunc(w.notices, func(n *notice) bool {
				return n.report.Ack != nil && n.report.Ack.Task == passed && n.report.Ack.Primary && n.report.Ack.Epoch > epoch
			}) {
				w.kill(a)
				phase, since = 2, w.step
			}
		case 2:
			if a != nil && b != nil {
				w.hold(a, b)
			}
			if w.metadata.checkpoint > epoch && w.killTask(passed) || !w.metadata.saving { // it was abandoned, as it should be
				return did
			}
		}
		return going
	}
}

// lostDecision: a decision is lost with the leader that proposed it, after a while. The worker that it would have chosen dies; the
// next leader decides otherwise.
func lostDecision() func(*World) verdict {
	phase, since, host := 0, 0, determinant.WorkerID(0)
	return func(w *World) verdict {
		m := w.metadata
		if phase > 0 && w.step > since+tries {
			return cannot
		}
		switch phase {
		case 0:
			if settled(w) {
				w.kill(w.process(m.places[second1].Worker))
				phase, since = 1, w.step
			}
		case 1:
			m.proposals = slices.DeleteFunc(m.proposals, func(p proposal) bool {
				if p.entry.Decision == nil {
					return false
				}
				phase, since, host = 2, w.step, p.entry.Decision.Tasks[second1].Worker
				return true
			})
		case 2:
			if r := m.leader(); w.step > since+1200 && r != nil {
				r.die()
				if p := w.process(host); p != nil {
					w.kill(p)
				}
				return did
			}
		}
		return going
	}
}
