package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
)

// promotion is a task on its way to be started here.
type promotion struct {
	inc     determinant.Incarnation
	machine *standby.Promotion
	started bool              // the merged log is known and in the store; what remains is to load the state
	causal  bool              // the choices of the former lives are collected. Invariant: the same for all decisions about one life
	repeats bool              // it makes choices of its own from the checkpoint on: what the former lives sent since may be sent again
	passed  determinant.Epoch // then: the last epoch that others may have passed
	waited  bool              // Measure has said so: it says too when that is over
}

// promote begins, or begins anew in a new round, to start task p here.
func (w *Worker) promote(d *standby.Decision, p standby.Placement) {
	pr := w.mu.promos[p.Task]
	if pr == nil || pr.inc != p.Incarnation {
		pr = &promotion{inc: p.Incarnation, machine: standby.NewPromotion(p.Task, p.Incarnation, w.opts.Mutations)}
		pr.causal, pr.repeats = p.Recovering && d.Collect, p.Recovering && !d.Collect
		w.mu.promos[p.Task] = pr
	}
	if pr.causal != (p.Recovering && d.Collect) {
		panic(fmt.Sprintf("cluster: assertion failed: %v was recovered with determinants: %v, and now is not: %v", p, pr.causal, d))
	}
	base, life := w.mu.view.base(p.Task)
	if pr.repeats {
		pr.passed = w.mu.view.newest() // while a task recovers so, no further epoch begins
	}
	if pr.repeats && !w.opts.Mutations.Has(mutation.HistoriesOverlap) {
		var ok bool
		if base, ok = base.Anew(uint64(p.Incarnation - life)); !ok {
			w.report(Report{Rollback: &standby.RollbackWanted{Task: p.Task, Incarnation: p.Incarnation, Cause: "the offsets of its log are used up"}})
			return
		}
	}
	if !pr.causal {
		w.start(p.Task, pr, causal.Copy{Task: p.Task, Base: base})
		return
	}
	w.env.Observe(Observation{Task: p.Task, Incarnation: p.Incarnation, Phase: Decided})
	stores := w.storesToRead(d)
	event := standby.Decided{Round: d.Round, Base: base, Hear: d.Hear, Stores: stores, StateReady: true}
	w.advance(p.Task, pr, event)
}

// storesToRead lists the sinks whose stores answer in this round: those that are recovering themselves. The worker of a
// live sink answers for its store: what the store holds was written from that worker's own logs, and what an earlier life
// had written was merged into them when the sink was recovered there.
func (w *Worker) storesToRead(d *standby.Decision) []determinant.TaskID {
	var stores []determinant.TaskID
	for _, s := range w.job.Topology.Sinks {
		if d.Tasks[s].Recovering && !w.opts.Mutations.Has(mutation.StoresNotRead) {
			stores = append(stores, s)
		}
	}
	return stores
}

// readStores reads the stores that answer in this round and that it is for this worker to read: each is read once, by the worker at
// which its sink recovers, or, while that has no place, by one at which something else does.
func (w *Worker) readStores(d *standby.Decision) {
	if !d.Collect {
		return
	}
	hosts := recoverers(d)
	for _, sink := range w.storesToRead(d) {
		reader := d.Tasks[sink].Worker
		if reader == 0 && len(hosts) > 0 {
			reader = hosts[0]
		}
		if reader == w.id {
			w.readStore(sink, hosts, d)
		}
	}
}

// readStore has a causal sink's store answer. The fence is raised before anything is read, so that no writer of a lower incarnation can
// add to what was read.
func (w *Worker) readStore(sink determinant.TaskID, hosts []determinant.WorkerID, d *standby.Decision) {
	fence := w.mu.view.fence(sink)
	w.env.Background(func() {
		stored, err := w.fenceStore(sink, fence)
		if errors.Is(err, operator.ErrFenced) || errors.Is(err, errClosed) {
			return // a later decision has come, and has it read anew
		}
		logs := causal.NewStore(len(w.job.Tasks))
		for _, delta := range stored.Deltas {
			if err != nil {
				break
			}
			if err = mergeStored(logs, delta); err != nil {
				err = fmt.Errorf("cluster: store of sink task %d: %w", sink, err)
			}
		}
		if err != nil {
			w.unread(sink, d, err)
			return
		}
		for _, host := range hosts {
			w.env.Tell(host, Control{From: w.id, Answer: answerFor(host, logs, w.job, d, standby.FromStore(sink))})
		}
	})
}

// unread reports that the store of a sink could not be read. A task that waits for it here is to begin anew: a sink that runs
// already is to blame only if there is none.
func (w *Worker) unread(sink determinant.TaskID, d *standby.Decision, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	blamed := sink
	if pr := w.mu.promos[sink]; pr == nil || pr.started {
		if waits := slices.IndexFunc(w.mu.promos, func(pr *promotion) bool { return pr != nil && !pr.started }); waits >= 0 {
			blamed = determinant.TaskID(waits)
		}
	}
	if d.Tasks[blamed].Worker != w.id { // others wait, and somebody has to fail for a new round
		blamed = d.Tasks[slices.IndexFunc(d.Tasks, func(p standby.Placement) bool { return p.Recovering && p.Worker == w.id })].Task
	}
	w.report(Report{Failed: &TaskFailure{Task: blamed, Incarnation: d.Tasks[blamed].Incarnation, Worker: w.id, Err: err}})
}

// mergeStored adds a stored delta to logs. The first of each task may begin anywhere: what is below was truncated.
func mergeStored(logs *causal.Store, delta []byte) error {
	return causal.DecodeDelta(delta, func(t determinant.TaskID, from determinant.LogOffset, covered bool, p []byte) error {
		log := logs.Log(t)
		return log.Merge(from, p, covered || log.Bytes() == 0)
	})
}

// answered hands an answer to the promotions that it is for. One of a decision that this worker has not applied yet is kept.
func (w *Worker) answered(a *Answer) {
	v := &w.mu.view
	if a.Round > v.Round {
		if len(w.mu.answers) < maxEarly {
			w.mu.answers = append(w.mu.answers, a)
		}
		return
	}
	if a.Generation != v.Generation {
		return
	}
	for t, pr := range w.mu.promos {
		if pr != nil && !pr.started {
			w.advance(determinant.TaskID(t), pr, a.about(w.job, determinant.TaskID(t)))
		}
	}
}

func (w *Worker) advance(t determinant.TaskID, pr *promotion, ev standby.PromotionEvent) {
	for _, effect := range pr.machine.Step(ev) {
		switch e := effect.(type) {
		case standby.Merge:
			for _, c := range e.Copies {
				if err := w.mu.logs.Log(c.Task).Merge(c.Base, c.Bytes, true); err != nil {
					w.report(Report{Rollback: &standby.RollbackWanted{
						Task: t, Incarnation: pr.inc, Cause: fmt.Sprintf("copies of log %d: %v", c.Task, err),
					}})
					return
				}
			}
		case standby.Start:
			w.env.Observe(Observation{Task: t, Incarnation: pr.inc, Phase: Collected, Bytes: len(e.Log.Bytes)})
			w.start(t, pr, e.Log)
		case standby.Rollback:
			w.report(Report{Rollback: &standby.RollbackWanted{Task: t, Incarnation: pr.inc, Cause: e.Cause}})
		}
	}
}

// start puts the merged log into the store at once, so that this worker can answer for it, and loads the state behind. Nothing that is
// done to the disk meanwhile touches the committed checkpoint that it loads: none is completed before the task has acknowledged it.
func (w *Worker) start(t determinant.TaskID, pr *promotion, log causal.Copy) {
	pr.started = true
	own := w.mu.logs.Reset(t, log.Base)
	if len(log.Bytes) > 0 {
		own.Append(log.Bytes)
	}
	own.SetOwn(true)
	inc := pr.inc
	w.env.Background(func() { // nothing that waits for the disk is in its way
		h, err := w.build(t, pr, log, own)
		if errors.Is(err, errClosed) || errors.Is(err, operator.ErrFenced) {
			return // overtaken by this worker's own end, or by a later decision
		}
		if err != nil {
			w.report(Report{Failed: &TaskFailure{Task: t, Incarnation: inc, Worker: w.id, Err: err}})
			return
		}
		if h != nil {
			w.install(t, h)
		}
	})
}

// build restores a task from the committed checkpoint, and folds it first if this worker has not done so yet.
func (w *Worker) build(t determinant.TaskID, pr *promotion, log causal.Copy, own *causal.Log) (*hosted, error) {
	inc := pr.inc
	w.mu.Lock()
	v := w.mu.view.clone()
	stale := w.mu.closed || v.Places[t].Incarnation != inc || v.Places[t].Worker != w.id
	w.mu.Unlock()
	if stale {
		return nil, nil
	}
	spec := &w.job.Tasks[t]
	epoch := v.committed()
	_, life := v.base(t)
	h := &hosted{w: w, inc: inc, base: epoch}
	h.recovering.Store(v.Places[t].Recovering)
	h.silent.Store(inc > 1)
	h.drift.begin(w.job.Plan.Vertices[spec.Vertex].MaxDrift)
	meta := checkpoint.Meta{Task: t}
	state := w.opts.State
	err := state.MetaAt(t, epoch, life, &meta)
	if err != nil {
		return nil, fmt.Errorf("cluster: task %s[%d]: %w", spec.Info.Vertex, spec.Info.Index, err)
	}
	mode, depth := meta.Mode, meta.Depth
	if meta.Epoch == 0 {
		mode, depth = v.Mode, v.Depth
	}
	warm := w.takeWarm(t, epoch, life)
	if warm != nil {
		h.warm = int(warm.Bytes())
	}
	h.task, err = task.New(task.Config{
		ID: t, Incarnation: inc, Info: spec.Info, Inputs: spec.Inputs, Edges: spec.Edges,
		External: spec.External, ExternalID: spec.ExtID, New: w.job.Plan.Vertices[spec.Vertex].New,
		Splits: w.splitsOf(spec, &v, inc), Mode: mode, Depth: depth, Meta: meta,
		Load: func(load func(table string, key, value []byte) error) error {
			return state.RestoreAt(t, epoch, life, &meta, load)
		},
		State: warm,
		Log:   own, Passed: pr.passed, Replay: log.Bytes, SkipAt: v.asides(t),
		Context: w.opts.Context, Clock: w.opts.Clock, Entropy: w.opts.Entropy, Calls: w.opts.Calls(t), Budget: w.opts.Budget, Host: h,
		MaxElements: w.opts.MaxElements, MaxUnsent: w.opts.MaxUnsent, Cleaning: w.opts.Cleaning, Slice: w.opts.Slice, Pick: w.opts.Pick,
		Hold: func() bool { return w.env.Hold(t) }, Gated: w.gated, Allow: h.allow, Probe: w.opts.Probe, Mutations: w.opts.Mutations,
	})
	if err != nil {
		return nil, err
	}
	h.in = make([]inbound, len(spec.Inputs))
	for i, in := range spec.Inputs {
		h.in[i].channel = in.Channel
		h.in[i].received = determinant.Cursor{Epoch: epoch + 1}
		if epoch > 0 {
			h.in[i].received = meta.Inputs[i]
		}
		h.in[i].granted = h.in[i].received.Next
		h.in[i].taken.Store(uint64(h.in[i].received.Next))
	}
	for _, o := range h.task.Outputs() {
		h.starts = append(h.starts, o.End().Next)
	}
	if spec.External {
		if h.sink, err = w.takeUpOutput(h, &v, pr.repeats); err != nil {
			return nil, errors.Join(err, h.task.Close())
		}
	}
	return h, nil
}

// install lets a restored task run, if no later decision has come in between.
func (w *Worker) install(t determinant.TaskID, h *hosted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.mu.view.Places[t]
	if w.mu.closed || p.Incarnation != h.inc || p.Worker != w.id {
		if err := h.task.Close(); err != nil {
			w.report(Report{Failed: &TaskFailure{Task: t, Incarnation: h.inc, Worker: w.id, Err: err}})
		}
		return
	}
	w.mu.promos[t] = nil
	w.grow(h) // the ledger may have gone on while the state was loaded
	h.task.Abandoned(w.mu.abandoned)
	w.tasks[t].Store(h)
	w.env.Observe(Observation{Task: t, Incarnation: h.inc, Phase: Restored, Bytes: h.warm})
	for i := range h.in {
		w.subscribe(h, i, false)
	}
	for ch := range w.mu.subs {
		if w.job.Channels[ch].From == t {
			w.attach(determinant.ChannelID(ch))
		}
	}
	w.env.WakeTask(t)
}

// causalStore opens the causal store of a sink task once per worker.
func (w *Worker) causalStore(t determinant.TaskID) (operator.CausalStore, error) {
	w.stores.Lock()
	defer w.stores.Unlock()
	return openOnce(w, w.stores.open, t, w.opts.OpenSink)
}

// openOnce opens what an external system has for task t, unless it is open. w.stores is held.
func openOnce[S any](w *Worker, opened map[determinant.TaskID]S, t determinant.TaskID, open func(determinant.TaskID) (S, error)) (S, error) {
	var none S
	if w.stores.closed {
		return none, errClosed
	}
	if s, ok := opened[t]; ok {
		return s, nil
	}
	s, err := open(t)
	if err != nil {
		return none, err
	}
	opened[t] = s
	if waiter, ok := any(s).(operator.Waiter); ok {
		w.outside[t].Store(&waiter)
	}
	return s, nil
}

func (w *Worker) fenceStore(t determinant.TaskID, f operator.Fence) (operator.Stored, error) {
	s, err := w.causalStore(t)
	if err != nil {
		return operator.Stored{}, err
	}
	stored, err := s.Fence(context.Background(), f)
	if err != nil {
		return stored, fmt.Errorf("cluster: store of sink task %d: %w", t, err)
	}
	return stored, nil
}
