package standby

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
)

func running3() State { return deployed(ws{1, 2, 3}, []ws{{4}, {4}, {5}}, 0) }

// Commands that come too late change nothing, on any replica.
func TestApplyRefuses(t *testing.T) {
	waitsForState := running3()
	waitsForState.Tasks[1] = Placement{Task: 1, Incarnation: 2, Recovering: true}
	waitsForState.Dead = ws{2}
	drains := running3()
	drains.Draining = []Draining{{Worker: 5, Since: 1}}
	for name, c := range map[string]struct {
		state   State
		command Command
	}{
		"standby: old incarnation":       {running3(), AssignStandby{Task: 1, Incarnation: 2, Worker: 5}},
		"standby: beside its primary":    {running3(), AssignStandby{Task: 1, Incarnation: 1, Worker: 2}},
		"standby: is one already":        {running3(), AssignStandby{Task: 1, Incarnation: 1, Worker: 4}},
		"standby: dead":                  {waitsForState, AssignStandby{Task: 0, Incarnation: 1, Worker: 2}},
		"standby: no such task":          {running3(), AssignStandby{Task: 9, Incarnation: 1, Worker: 5}},
		"standby: is to be drained":      {drains, AssignStandby{Task: 0, Incarnation: 1, Worker: 5}},
		"release: is none":               {running3(), ReleaseStandby{Task: 1, Incarnation: 1, Worker: 5}},
		"release: old incarnation":       {running3(), ReleaseStandby{Task: 1, Incarnation: 2, Worker: 4}},
		"release: no such task":          {running3(), ReleaseStandby{Task: 9, Incarnation: 1, Worker: 4}},
		"drain: dead":                    {waitsForState, SetDraining{Worker: 2, On: true}},
		"drain: is drained already":      {drains, SetDraining{Worker: 5, On: true}},
		"drain: nobody":                  {running3(), SetDraining{On: true}},
		"undrain: was not":               {drains, SetDraining{Worker: 4}},
		"recovered: never failed":        {running3(), Recovered{Task: 1, Incarnation: 1}},
		"recovered: old incarnation":     {waitsForState, Recovered{Task: 1, Incarnation: 1}},
		"recovered: has no place":        {waitsForState, Recovered{Task: 1, Incarnation: 2}},
		"recovered: no such task":        {running3(), Recovered{Task: 9, Incarnation: 1}},
		"checkpoint: old":                {running3(), Checkpoint{Committed: 0}},
		"checkpoint: says nothing new":   {running3(), Checkpoint{Committed: 1}},
		"decision: basis gone":           {running3(), Decision{Round: 2, Basis: 0, Tasks: make([]Placement, 3)}},
		"decision: of another job":       {running3(), Decision{Round: 2, Basis: 1, Tasks: make([]Placement, 2)}},
		"checkpoint: same modes as ever": {running3(), Checkpoint{Committed: 1, Since: []EpochMode{{Depth: determinant.Full}}}},
	} {
		if c.state.Depth == 0 {
			c.state.Depth = determinant.Full
		}
		d := NewDecider(Config{Topology: line(3)}, c.state)
		before := d.State()
		require.False(t, d.Apply(c.command), name)
		require.Equal(t, before, d.State(), name)
	}
}

// A decision that breaks an invariant is a bug wherever it was computed: nobody goes on with it.
func TestApplyPanicsOnImpossibleDecisions(t *testing.T) {
	for name, spoil := range map[string]func(d *Decision){
		"does not follow round":             func(d *Decision) { d.Round = 7 },
		"generation 0":                      func(d *Decision) { d.Checkpoint = 9 },
		"moves task 1 #1":                   func(d *Decision) { d.Tasks[1].Worker = 5 },
		"moves task 2 #1":                   func(d *Decision) { d.Tasks[2].Incarnation = 0 },
		"puts a standby beside its primary": func(d *Decision) { d.Tasks[0].Standbys = ws{1} },
		"counts on a worker that cannot":    func(d *Decision) { d.Tasks[0].From = 2 },
		"counts on a worker that":           func(d *Decision) { d.Tasks[0].Recovering, d.Tasks[0].From = true, 1 },
		"handed over by 9":                  func(d *Decision) { d.Tasks[0].Recovering, d.Tasks[0].From, d.Dead = true, 9, ws{9} },
	} {
		d := NewDecider(Config{Topology: line(3)}, running3())
		bad := d.Current()
		bad.Round++
		spoil(&bad)
		func() {
			defer func() { require.Contains(t, recover(), name) }()
			d.Apply(bad)
		}()
	}
}

// What a new leader knows from the ledger, and from a snapshot of it, is the same.
func TestSnapshotIsTheLedger(t *testing.T) {
	c := newCluster(Config{Topology: line(3)}, running3())
	c.die(2)
	c.step(Dead{Workers: ws{2}})
	c.commitAll()
	c.step(CaughtUp{Task: 1, Incarnation: 2})
	c.commitAll()
	replayed := NewDecider(c.config, c.first)
	for _, cmd := range c.ledger {
		require.True(t, replayed.Apply(cmd))
	}
	restored := NewDecider(c.config, c.decider.State())
	require.Equal(t, c.decider.State(), replayed.State())
	require.Equal(t, c.decider.State(), restored.State())
	require.Equal(t, c.decider.Live(), restored.Live())

	now := restored.Current()
	require.Equal(t, c.decider.State().Tasks, now.Tasks)
	now.Tasks[0].Worker = 99
	require.NotEqual(t, determinant.WorkerID(99), restored.Task(0).Worker, "Current is a copy")
}

// A drain that nobody can mean is forgotten, and so is one whose worker dies before the ledger has it.
func TestDrainsOfNobody(t *testing.T) {
	c := newCluster(Config{Topology: line(3)}, running3())
	c.step(Drain{Worker: 77})
	require.Empty(t, c.inFlight)
	c.step(Drain{Worker: 2})
	require.Equal(t, []Command{SetDraining{Worker: 2, On: true}}, c.inFlight)
	c.step(Drain{Worker: 2})
	require.Len(t, c.inFlight, 1, "it is asked for twice")
	c.inFlight = nil
	c.step(Leader{})
	require.Equal(t, []Command{SetDraining{Worker: 2, On: true}}, c.inFlight, "the proposal may be lost")
	c.step(Dead{Workers: ws{2}})
	c.commitAll()
	require.Empty(t, c.decider.State().Draining)
	require.Empty(t, c.decider.Drains())
	require.Empty(t, c.inFlight)
	c.commit(SetDraining{Worker: 2, On: true}) // of a former leader
	require.Empty(t, c.decider.State().Draining)
}

func TestWeakestModeAndLeastDepthCount(t *testing.T) {
	d := NewDecider(Config{Topology: line(3), Mode: determinant.AtLeastOnce, Depth: 5}, State{})
	require.Equal(t, determinant.AtLeastOnce, d.State().Mode)
	require.Equal(t, determinant.Depth(5), d.State().Depth)
	require.True(t, d.Apply(Checkpoint{Committed: 2, Since: []EpochMode{{determinant.ExactlyOnce, 3}, {determinant.GlobalRollback, 4}, {determinant.AtLeastOnce, 9}}}))
	require.Equal(t, EpochMode{determinant.GlobalRollback, 3}, EpochMode{d.State().Mode, d.State().Depth})
	require.True(t, d.Apply(Checkpoint{Committed: 3}), "modes stay as they are")
	require.Equal(t, EpochMode{determinant.GlobalRollback, 3}, EpochMode{d.State().Mode, d.State().Depth})
}

func TestPromotionRepeats(t *testing.T) {
	p := NewPromotion(1, 2, noMutation)
	decided := Decided{Round: 3, Hear: ws{1, 2}, Stores: []determinant.TaskID{4}}
	asks := p.Step(decided)
	require.Len(t, asks, 3)
	require.Equal(t, Ask{To: FromStore(4), Task: 1, Incarnation: 2, Round: 3}, asks[2])
	p.Step(Answer{From: FromWorker(1), Round: 3, Copy: causal.Copy{Task: 1}})
	require.Equal(t, asks[1:], p.Step(decided), "a repeated decision asks again those who have not answered")
	require.Empty(t, p.Step(Decided{Round: 2, Hear: ws{9}}), "an old one changes nothing")
	require.Empty(t, p.Step(Superseded{Incarnation: 2}), "nor does its own incarnation")
	require.False(t, p.Done())
	require.Equal(t, determinant.TaskID(1), p.Task())
	require.Equal(t, determinant.Incarnation(2), p.Incarnation())
	p.Step(Superseded{Incarnation: 3})
	require.True(t, p.Done())
	require.Empty(t, p.Step(decided))
	require.Contains(t, p.String(), "superseded")
}

// A contradiction is reported again in every later round until the rollback comes: the one who differed may be dead by then,
// and the rest may agree, but one of them has seen what never happened.
func TestPromotionStaysContradicted(t *testing.T) {
	p := NewPromotion(1, 2, noMutation)
	p.Step(Decided{Round: 1, Hear: ws{1, 2}, StateReady: true})
	p.Step(Answer{From: FromWorker(1), Round: 1, Copy: causal.Copy{Task: 1, Bytes: []byte("a")}})
	first := p.Step(Answer{From: FromWorker(2), Round: 1, Copy: causal.Copy{Task: 1, Bytes: []byte("b")}})
	require.Len(t, first, 1)
	require.Equal(t, first, p.Step(Decided{Round: 2, Hear: ws{1}}))
	require.Empty(t, p.Step(Answer{From: FromWorker(1), Round: 2, Copy: causal.Copy{Task: 1, Bytes: []byte("a")}}))
}

func TestPromotionRestoresAnew(t *testing.T) {
	p := NewPromotion(1, 2, noMutation)
	p.Step(Decided{Round: 1, Base: 10, Hear: ws{1}, StateReady: true})
	require.Empty(t, p.Step(Decided{Round: 2, Base: 20}), "the state of another checkpoint does not count")
	require.Equal(t, []PromotionEffect{Start{Log: causal.Copy{Task: 1, Base: 20}}}, p.Step(StateReady{}))
}

func TestPromotionPanicsWithItsHistory(t *testing.T) {
	p := NewPromotion(1, 2, noMutation)
	p.Step(Decided{Round: 1, Hear: ws{1}})
	defer func() { require.Contains(t, recover(), "round 1: waiting to collecting") }()
	p.Step(Answer{From: FromWorker(1), Round: 1, Copy: causal.Copy{Task: 9}})
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	for range 10 * historyLen {
		h.add("line")
	}
	require.Len(t, h.lines, historyLen)
}

// manyTasks is a job of four layers of n tasks on 20 workers.
func manyTasks(n int) (Config, State) {
	place := make(ws, 4*n)
	standbys := make([]ws, 4*n)
	for i := range place {
		place[i] = determinant.WorkerID(1 + i%20)
		standbys[i] = ws{determinant.WorkerID(1 + (i+1)%20)}
	}
	return Config{Topology: layers(n, n, n, n)}, deployed(place, standbys, 0)
}

// One decision over a job of 200 tasks on 20 workers, half of it waiting for its log.
func BenchmarkDecision(b *testing.B) {
	config, s := manyTasks(50)
	for b.Loop() {
		d := NewDecider(config, s)
		d.Step(Dead{Workers: ws{3, 7}})
	}
}

// One look at the time, ten of which are taken a second, over 1,000 tasks; one worker is being drained or none.
func BenchmarkTick(b *testing.B) {
	for name, draining := range map[string][]Draining{"running": nil, "draining": {{Worker: 3, Since: 1}}} {
		b.Run(name, func(b *testing.B) {
			config, s := manyTasks(250)
			s.Draining = draining
			d := NewDecider(config, s)
			now := int64(1000)
			for b.Loop() {
				now += 200
				d.Step(Tick{Now: now})
			}
		})
	}
}
