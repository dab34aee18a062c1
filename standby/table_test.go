package standby

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

var phases = []Phase{CheckpointUnderWay, Deciding, Collecting, Restoring, Replaying, CaughtUpPhase, Drains, HandingOver, TakingOver}

// possible tells whether a phase has all that is to be lost.
func possible(p Phase, l Loss) bool { return p&handedOver != 0 || l&Former == 0 }

// Every situation is in exactly one row, and every row is needed.
func TestTableIsAPartition(t *testing.T) {
	used := make([]int, len(cases))
	for _, phase := range phases {
		for lost := Loss(0); lost <= allLosses; lost++ {
			for _, depth := range []Coverage{Deep, Shallow} {
				if !possible(phase, lost) {
					continue
				}
				var rows []string
				for i, c := range cases {
					if c.matches(phase, lost, depth) {
						rows = append(rows, c.Label)
						used[i]++
					}
				}
				require.Len(t, rows, 1, "%v, %v lost, depth %d", phase, lost, depth)
				require.Equal(t, rows[0], Find(phase, lost, depth).Label)
			}
		}
	}
	for i, n := range used {
		require.NotZero(t, n, "row %q", cases[i].Label)
		require.NotEmpty(t, cases[i].Why)
	}
	require.Len(t, Cases(), len(cases))
	require.Panics(t, func() { Find(0, 0, Deep) })
}

// Each row is played in each situation that it covers; if the leader dies, once with what it had in flight lost and once
// with it committed after all.
func TestTableRows(t *testing.T) {
	for _, c := range cases {
		t.Run(c.Label, func(t *testing.T) {
			for _, phase := range phases {
				for lost := Loss(0); lost <= allLosses; lost++ {
					for _, depth := range []Coverage{Deep, Shallow} {
						for _, dropped := range []bool{false, true} {
							if !possible(phase, lost) || !c.matches(phase, lost, depth) || dropped && lost&LeaderLost == 0 {
								continue
							}
							name := fmt.Sprintf("%v, %v lost, depth %d, proposals dropped %v", phase, lost, depth, dropped)
							play := newPlay(depth)
							play.reach(phase)
							got := play.lose(lost, phase, dropped)
							require.Equal(t, c.Fate.String(), got.String(), "%s\n%v", name, play.story())
							require.Equal(t, lost&workerLosses != 0, play.rounds(dropped) > 0, "new round: %s\n%v", name, play.story())
						}
					}
				}
			}
		})
	}
}

// play is one situation of the table: source 0 on worker 1, the task 1 on worker 2 with standbys on 3 and 4, the sink 2 on
// worker 5 with a standby on 6, as worker 1 has for the source. The sink's store is causal.
type play struct {
	*cluster
	host  determinant.WorkerID // where the task runs or is to run when the loss comes
	inc   determinant.Incarnation
	round determinant.Round
	due   bool // a decision was in flight when the loss came
}

const subject = 1

func newPlay(depth Coverage) *play {
	d := determinant.Full
	if depth == Shallow {
		d = 1
	}
	s := deployed(ws{1, 2, 5}, []ws{{6}, {3, 4}, {6}}, d)
	return &play{cluster: newCluster(Config{Topology: line(3)}, s), host: 2, inc: 1, round: 1}
}

// reach brings the task to a phase.
func (p *play) reach(phase Phase) {
	switch phase {
	case CheckpointUnderWay:
		return
	case Drains, HandingOver, TakingOver:
		p.drain(phase)
		return
	}
	p.host, p.inc = 3, 2
	p.die(2)
	p.step(Dead{Workers: ws{2}})
	if p.due = phase == Deciding; p.due {
		return
	}
	p.commitAll()
	p.round = 2
	if phase == Collecting {
		return
	}
	p.answerAll(true)
	if phase == Restoring {
		return
	}
	p.stateReady()
	if phase == CaughtUpPhase {
		p.step(CaughtUp{Task: subject, Incarnation: 2})
		p.commitAll()
	}
}

// drain has worker 2 hand the task over to worker 3.
func (p *play) drain(phase Phase) {
	p.step(Drain{Worker: 2})
	p.commitAll()
	if phase == Drains {
		return
	}
	p.host, p.inc, p.round = 3, 2, 2
	p.commit(Checkpoint{Committed: 2, Holders: []ws{{1, 6}, {2, 3, 4}, {5, 6}}})
	p.commitAll()
	if phase == TakingOver {
		p.answerAll(true)
		p.stateReady()
	}
}

// lose loses what is to be lost and lets everything run until nothing moves, then says what became of the task.
func (p *play) lose(lost Loss, phase Phase, dropped bool) Fate {
	var gone ws
	if lost&Primary != 0 {
		gone = append(gone, p.host)
	}
	if lost&Standby != 0 {
		gone = with(gone, without(ws{3, 4}, ws{p.host}))
	}
	if lost&Holder != 0 {
		gone = append(gone, 5)
	}
	if lost&Former != 0 {
		gone = append(gone, 2)
	}
	p.die(gone...)
	if lost&LeaderLost != 0 {
		if dropped {
			p.inFlight = nil
		}
		p.newLeader()
		for w := determinant.WorkerID(1); w <= 6; w++ {
			p.step(Joined{Worker: w})
		}
		if phase == Deciding {
			p.step(Dead{Workers: ws{2}})
		}
	}
	if len(gone) > 0 {
		p.step(Dead{Workers: gone})
	}
	p.commitAll()
	before := p.promotions[subject]
	collecting := before != nil && !before.Done() && len(before.Missing()) > 0
	p.answerAll(lost&Store == 0)
	if phase != Restoring || p.starts[subject] == 0 {
		p.stateReady()
	}
	return p.fate(phase, lost, collecting)
}

func (p *play) fate(phase Phase, lost Loss, collecting bool) Fate {
	s := p.decider.State()
	task := s.Tasks[subject]
	promotion := p.promotions[subject]
	switch {
	case s.Generation > 0:
		return RolledBack
	case task.Worker == 0:
		return Waits
	case phase&running != 0 && task.Incarnation == p.inc:
		return Untouched
	case !promotion.Done():
		if m := promotion.Missing(); len(m) == 1 && m[0].IsStore {
			return AwaitsStore
		}
		panic(promotion.String())
	case task.Worker != p.host:
		return Promoted
	case collecting && lost&workerLosses != 0:
		return Recollects
	}
	return Continues
}

// rounds tells how many decisions came after the loss, not counting the one that was due anyway. If that one was dropped
// with the leader, one decision may answer both deaths; it then names more than the first.
func (p *play) rounds(dropped bool) int {
	s := p.decider.State()
	n := int(s.Round - p.round)
	if p.due {
		n--
		if dropped && n == 0 && len(s.Dead) > 1 {
			n++
		}
	}
	return n
}

func (p *play) story() (text string) {
	for _, e := range p.effects {
		text += e + "\n"
	}
	return text
}
