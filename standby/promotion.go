package standby

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// Origin is who answers for a copy of a log: a live worker, or the causal store of a sink.
type Origin struct {
	Worker  determinant.WorkerID
	Store   determinant.TaskID // the sink, if IsStore
	IsStore bool
}

// FromWorker is the origin of a worker's answers.
func FromWorker(w determinant.WorkerID) Origin { return Origin{Worker: w} }

// FromStore is the origin of what the causal store of a sink holds.
func FromStore(sink determinant.TaskID) Origin { return Origin{Store: sink, IsStore: true} }

// String gives "worker 3" or "store of task 7".
func (o Origin) String() string {
	if o.IsStore {
		return fmt.Sprintf("store of task %d", o.Store)
	}
	return fmt.Sprintf("worker %d", o.Worker)
}

// PromotionEvent is what a Promotion is told. Repeats and stale events change nothing.
type PromotionEvent interface{ promotionEvent() }

type (
	// Decided: this worker has applied a decision in which the task is recovering here. Every later round begins the
	// collection anew as long as the task has not started.
	Decided struct {
		Round      determinant.Round
		Base       determinant.LogOffset  // where the task's log stands in the decision's checkpoint
		Hear       []determinant.WorkerID // who must answer, this worker included; none if the decision does not collect
		Stores     []determinant.TaskID   // sinks whose causal store must be read; none likewise
		StateReady bool                   // the state of the checkpoint is restored already
	}
	// Answer is one origin's copy of the task's log and of the logs that the task may depend on. A worker answers after it
	// has applied the decision of that round; a store after its fence was raised.
	Answer struct {
		From  Origin
		Round determinant.Round
		Copy  causal.Copy   // owned by the Promotion from here on
		Past  []causal.Copy // likewise
	}
	// StateReady: the state of the checkpoint is restored.
	StateReady struct{}
	// Superseded: a decision gave the task a higher incarnation, here or elsewhere.
	Superseded struct{ Incarnation determinant.Incarnation }
)

func (Decided) promotionEvent()    {}
func (Answer) promotionEvent()     {}
func (StateReady) promotionEvent() {}
func (Superseded) promotionEvent() {}

// PromotionEffect is what a Promotion wants done.
type PromotionEffect interface{ promotionEffect() }

type (
	// Ask wants an answer for this round from To. A store is fenced before it is read. Asks may be lost; a repeated
	// Decided repeats those that are open.
	Ask struct {
		To          Origin
		Task        determinant.TaskID
		Incarnation determinant.Incarnation
		Round       determinant.Round
	}
	// Merge wants these copies in this worker's store at once and whole, in this order: by start, so that each finds what
	// is before it. A start that leaves a gap is covered by a committed checkpoint. The task's own log is among them, from
	// Base on, so that what was collected outlives those it came from even before the task starts.
	Merge struct{ Copies []causal.Copy }
	// Start wants the task started from the checkpoint's state with this log, which begins at Base. It is the last effect.
	Start struct{ Log causal.Copy }
	// Rollback: the copies contradict one another; the coordinator is to hear RollbackWanted.
	Rollback struct{ Cause string }
)

func (Ask) promotionEffect()      {}
func (Merge) promotionEffect()    {}
func (Start) promotionEffect()    {}
func (Rollback) promotionEffect() {}

// String gives the effect in one line.
func (a Ask) String() string {
	return fmt.Sprintf("ask %v for task %d #%d round %d", a.To, a.Task, a.Incarnation, a.Round)
}

// String gives the effect in one line.
func (m Merge) String() string {
	s := "merge"
	for _, c := range m.Copies {
		s += fmt.Sprintf(" %d:[%d,%d)", c.Task, c.Base, c.Base+determinant.LogOffset(len(c.Bytes)))
	}
	return s
}

// String gives the effect in one line.
func (s Start) String() string {
	return fmt.Sprintf("start task %d with log [%d,%d)", s.Log.Task, s.Log.Base, s.Log.Base+determinant.LogOffset(len(s.Log.Bytes)))
}

// String gives the effect in one line.
func (r Rollback) String() string { return "roll back: " + r.Cause }

// stage is how far a promotion has come. It moves to the right, except that a new round leads from restoring back to
// collecting.
type stage uint8

const (
	waiting    stage = iota // no decision yet
	collecting              // answers are missing
	restoring               // all answered, merged; the state is not there yet
	started
	contradicted // copies differ: waits for the rollback
	superseded
)

func (s stage) String() string {
	return [...]string{"waiting", "collecting", "restoring", "started", "contradicted", "superseded"}[s]
}

// Promotion makes a task out of a standby, or of any worker that has the committed state: a pure state machine for one
// incarnation of one task.
type Promotion struct {
	task        determinant.TaskID
	incarnation determinant.Incarnation
	mutations   mutation.Set

	stage   stage
	round   determinant.Round
	base    determinant.LogOffset
	ready   bool     // the state is restored
	missing []Origin // Invariant: empty unless collecting
	answers []Answer // Invariant: all of round
	log     causal.Copy
	cause   string
	early   []Answer // of one round above ours, the newest seen: its decision is under way. At most one per origin
	history history
}

// NewPromotion begins the promotion of one incarnation of a task. Mutations are for tests.
func NewPromotion(task determinant.TaskID, inc determinant.Incarnation, mutations mutation.Set) *Promotion {
	return &Promotion{task: task, incarnation: inc, mutations: mutations}
}

// Task gives the task that is promoted.
func (p *Promotion) Task() determinant.TaskID { return p.task }

// Incarnation gives the incarnation that is to be started.
func (p *Promotion) Incarnation() determinant.Incarnation { return p.incarnation }

// Round gives the round whose answers count, 0 before the first decision.
func (p *Promotion) Round() determinant.Round { return p.round }

// Missing lists who has not answered yet in this round. The caller must not change it.
func (p *Promotion) Missing() []Origin { return p.missing }

// Done tells that no effect but a repeated Rollback will come: the task was started, superseded, or waits for the
// rollback.
func (p *Promotion) Done() bool { return p.stage >= started }

// String gives the promotion in one line, for status and stories.
func (p *Promotion) String() string {
	return fmt.Sprintf("promotion of task %d #%d: %v, round %d, missing %v, state ready %v",
		p.task, p.incarnation, p.stage, p.round, p.missing, p.ready)
}

// Step takes one event in and gives what follows from it.
func (p *Promotion) Step(ev PromotionEvent) []PromotionEffect {
	switch ev := ev.(type) {
	case Decided:
		return p.onDecided(ev)
	case Answer:
		return p.onAnswer(ev)
	case StateReady:
		p.ready = true
		return p.start()
	case Superseded:
		if ev.Incarnation > p.incarnation {
			p.move(superseded)
			p.missing, p.answers, p.early, p.log = nil, nil, nil, causal.Copy{}
		}
	}
	return nil
}

// move is the only writer of the stage.
func (p *Promotion) move(to stage) {
	back := p.stage == restoring && to == collecting
	if p.stage == superseded && to != superseded || to < p.stage && !back || p.stage == started && to == contradicted {
		p.history.panic("promotion of task %d #%d goes from %v to %v", p.task, p.incarnation, p.stage, to)
	}
	p.history.add("round %d: %v to %v", p.round, p.stage, to)
	p.stage = to
}

// onDecided begins a round. Whatever older rounds brought does not count any more: between a death and its round, one who
// answered before may have learned what the dead one alone knew, and the others' answers would not show it.
func (p *Promotion) onDecided(ev Decided) []PromotionEffect {
	switch {
	case p.stage == contradicted && ev.Round > p.round: // the report may have been lost; the contradiction remains
		p.round = ev.Round
		return []PromotionEffect{Rollback{Cause: p.cause}}
	case p.stage >= started || ev.Round < p.round:
		return nil
	case ev.Round == p.round:
		return p.asks()
	}
	p.ready = ev.StateReady || p.ready && ev.Base == p.base
	p.round, p.base = ev.Round, ev.Base
	p.missing = nil
	for _, w := range ev.Hear {
		p.missing = append(p.missing, FromWorker(w))
	}
	if n := len(p.missing); n > 1 && p.mutations.Has(mutation.CollectionMissesOneWorker) {
		p.missing = p.missing[:n-1]
	}
	for _, s := range ev.Stores {
		p.missing = append(p.missing, FromStore(s))
	}
	if p.mutations.Has(mutation.OldRoundCounts) {
		for _, a := range p.answers {
			p.missing = slices.DeleteFunc(p.missing, func(o Origin) bool { return o == a.From })
		}
	} else {
		p.answers = nil
	}
	p.log = causal.Copy{}
	p.move(collecting)
	out := p.asks()
	early := p.early
	p.early = nil
	for _, a := range early {
		out = append(out, p.onAnswer(a)...)
	}
	return append(out, p.conclude()...)
}

func (p *Promotion) asks() []PromotionEffect {
	var out []PromotionEffect
	for _, o := range p.missing {
		out = append(out, Ask{To: o, Task: p.task, Incarnation: p.incarnation, Round: p.round})
	}
	return out
}

func (p *Promotion) onAnswer(a Answer) []PromotionEffect {
	if p.stage >= started {
		return nil
	}
	if a.Copy.Task != p.task {
		p.history.panic("promotion of task %d got a copy of the log of task %d", p.task, a.Copy.Task)
	}
	if a.Round > p.round {
		p.keep(a)
		return nil
	}
	if a.Round < p.round && !p.mutations.Has(mutation.OldRoundCounts) {
		return nil
	}
	at := slices.Index(p.missing, a.From)
	if at < 0 {
		return nil
	}
	p.missing = slices.Delete(p.missing, at, at+1)
	p.answers = append(p.answers, a)
	return p.conclude()
}

// keep holds an answer until its decision arrives. Only the newest round's are worth it: all older ones will be void.
func (p *Promotion) keep(a Answer) {
	if len(p.early) > 0 && p.early[0].Round != a.Round {
		if p.early[0].Round > a.Round {
			return
		}
		p.early = nil
	}
	if !slices.ContainsFunc(p.early, func(e Answer) bool { return e.From == a.From }) {
		p.early = append(p.early, a)
	}
}

// conclude ends the collection once everyone has answered.
func (p *Promotion) conclude() []PromotionEffect {
	if p.stage != collecting || len(p.missing) > 0 {
		return nil
	}
	longest, cause := longestCopy(p.task, p.base, p.answers)
	if cause != "" {
		p.cause = cause
		p.move(contradicted)
		p.answers, p.early = nil, nil
		return []PromotionEffect{Rollback{Cause: cause}}
	}
	p.log = longest
	var out []PromotionEffect
	if copies := p.merged(); len(copies) > 0 {
		out = append(out, Merge{Copies: copies})
	}
	p.move(restoring)
	return append(out, p.start()...)
}

// merged lists everything that was collected, by start.
func (p *Promotion) merged() []causal.Copy {
	var copies []causal.Copy
	if len(p.log.Bytes) > 0 {
		copies = append(copies, p.log)
	}
	for _, a := range p.answers {
		if p.mutations.Has(mutation.OnlyDeadLogCollected) {
			break
		}
		for _, c := range a.Past {
			if len(c.Bytes) > 0 {
				copies = append(copies, c)
			}
		}
	}
	slices.SortStableFunc(copies, func(a, b causal.Copy) int {
		return cmp.Or(cmp.Compare(a.Base, b.Base), cmp.Compare(a.Task, b.Task), cmp.Compare(len(a.Bytes), len(b.Bytes)))
	})
	return copies
}

func (p *Promotion) start() []PromotionEffect {
	if p.stage != restoring || !p.ready {
		return nil
	}
	p.move(started)
	p.answers, p.early = nil, nil
	return []PromotionEffect{Start{Log: p.log}}
}

// longestCopy merges copies of one log from base on. Cause is not empty if one of them begins above base, so that nobody
// knows what came before it, or is not a prefix of the longest.
func longestCopy(task determinant.TaskID, base determinant.LogOffset, answers []Answer) (longest causal.Copy, cause string) {
	longest = causal.Copy{Task: task, Base: base}
	var from Origin
	above := make([][]byte, len(answers)) // the bytes of each copy from base on
	for i, a := range answers {
		end := a.Copy.Base + determinant.LogOffset(len(a.Copy.Bytes))
		switch {
		case end <= base:
		case a.Copy.Base > base:
			return longest, fmt.Sprintf("copy of log %d from %v begins at %d, the checkpoint at %d", task, a.From, a.Copy.Base, base)
		default:
			above[i] = a.Copy.Bytes[base-a.Copy.Base:]
			if len(above[i]) > len(longest.Bytes) {
				longest.Bytes, from = above[i], a.From
			}
		}
	}
	for i, b := range above {
		if bytes.HasPrefix(longest.Bytes, b) {
			continue
		}
		at := base
		for j := 0; b[j] == longest.Bytes[j]; j++ {
			at++
		}
		return longest, fmt.Sprintf("copies of log %d from %v and %v differ at %d", task, answers[i].From, from, at)
	}
	return longest, ""
}
