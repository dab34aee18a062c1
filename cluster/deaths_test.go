package cluster

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
)

// mortal is a job of a source, a task that dies again and again, and one behind both, with the coordinator's two state machines that decide
// about checkpoints, in virtual milliseconds.
type mortal struct {
	interval int64   // between checkpoints
	gap      int64   // between deaths, more or less
	speed    float64 // of a replay, in times real time
	restore  int64   // before a replay begins
	chance   bool    // the time between deaths is distributed exponentially

	points     *checkpoint.Coordinator
	pace       pace
	now        int64
	life       determinant.Incarnation
	recovering bool
	restored   int64
	at, base   float64 // where the task is, and the last complete checkpoint, in the source's time
	barrier    float64 // of the checkpoint under way, likewise
	open       determinant.Epoch
	acked      map[ackOf]bool
	completed  int64
	longest    int64 // time without a complete checkpoint
}

type ackOf struct {
	task  determinant.TaskID
	life  determinant.Incarnation
	epoch determinant.Epoch
}

const alignment = 20 // milliseconds from the source to the last task

func (m *mortal) carryOut(effects []checkpoint.Effect) {
	for _, e := range effects {
		p, ok := e.(checkpoint.Propose)
		if !ok {
			continue
		}
		more := m.points.Step(checkpoint.Committed(p))
		switch cmd := p.Command.(type) {
		case checkpoint.Start:
			m.open, m.barrier = cmd.Epoch, float64(m.now)
			m.pace.start(m.now)
		case checkpoint.Complete:
			m.longest, m.completed = max(m.longest, m.now-m.completed), m.now
			m.base, m.open = m.barrier, 0
			m.pace.complete(m.now)
		case checkpoint.Abandon:
			m.open, m.pace.started = 0, 0
		}
		m.carryOut(more)
	}
}

func (m *mortal) place() {
	m.carryOut(m.points.Step(checkpoint.Placed{
		Incarnations: []determinant.Incarnation{1, m.life, 1}, Standbys: make([][]determinant.WorkerID, 3),
		Recovering: []bool{false, m.recovering, false}, Handed: make([]bool, 3),
	}))
}

func (m *mortal) acknowledge(t determinant.TaskID, life determinant.Incarnation) {
	if key := (ackOf{t, life, m.open}); m.open > 0 && !m.acked[key] {
		m.acked[key] = true
		m.carryOut(m.points.Step(checkpoint.Ack{Task: t, Incarnation: life, Epoch: m.open, Worker: determinant.WorkerID(t + 1), Primary: true}))
	}
}

// run lets ten minutes pass.
func (m *mortal) run(seed uint64) {
	const step, tick = 5, 25
	random := rand.New(rand.NewPCG(seed, 1))
	s := checkpoint.NewState(3, determinant.ExactlyOnce, determinant.Full)
	m.points = checkpoint.NewCoordinator(checkpoint.Config{Sources: []determinant.TaskID{0}, Interval: m.interval}, s)
	m.life, m.acked = 1, map[ackOf]bool{}
	m.carryOut(m.points.Step(checkpoint.Leader{}))
	death := m.gap
	for ; m.now < 600_000; m.now += step {
		if m.now%tick == 0 {
			if m.pace.due(m.now, m.recovering) {
				m.carryOut(m.points.Step(checkpoint.Request{}))
			}
			m.carryOut(m.points.Step(checkpoint.Tick{Now: m.now}))
		}
		if m.now >= death {
			death = m.now + m.gap*3/4 + random.Int64N(m.gap/2)
			if m.chance {
				death = m.now + int64(float64(m.gap)*random.ExpFloat64())
			}
			m.life, m.recovering, m.at, m.restored = m.life+1, true, m.base, m.now+m.restore
			m.pace.failed(m.now)
			m.place()
		}
		m.replay(step)
		if passed := m.barrier + alignment; float64(m.now) >= passed {
			m.acknowledge(0, 1)
			if m.at >= passed {
				m.acknowledge(1, m.life)
				m.acknowledge(2, 1)
			}
		}
	}
	m.longest = max(m.longest, m.now-m.completed)
}

func (m *mortal) replay(step float64) {
	if m.recovering && m.now >= m.restored {
		if m.at += step * m.speed; m.at >= float64(m.now) {
			m.recovering = false
			m.place()
		}
	}
	if !m.recovering {
		m.at = float64(m.now)
	}
}

// The same where deaths are so frequent that many of them count as one.
func TestCheckpointsCompleteWhereDeathsAreFrequent(t *testing.T) {
	for _, gap := range []int64{50, 100, 200} {
		for _, interval := range []int64{100, 200, 1000} {
			t.Run(fmt.Sprintf("gap=%d,interval=%d", gap, interval), func(t *testing.T) {
				for seed := range uint64(5) {
					m := mortal{interval: interval, gap: gap, speed: 8, restore: 10, chance: true}
					m.run(seed)
					require.Less(t, m.longest, 2*interval+10*gap, "seed %d", seed)
				}
			})
		}
	}
}

// What is done to spare tasks that live, abandoning checkpoints and putting them off, never keeps them from completing: the barrier that
// a task replays up to must not move away from the last complete checkpoint as fast as it dies.
func TestCheckpointsCompleteHoweverOftenTasksDie(t *testing.T) {
	for _, gap := range []int64{500, 1000, 2000, 3000, 4000, 8000, 30_000} {
		for _, speed := range []float64{1.5, 2, 4, 8} {
			m := mortal{interval: 1000, gap: gap, speed: speed, restore: 300}
			if float64(m.restore)+float64(m.interval)/(speed-1) >= float64(gap)*3/4 {
				continue // a replay does not catch up before the next death
			}
			t.Run(fmt.Sprintf("gap=%d,speed=%v", gap, speed), func(t *testing.T) {
				for seed := range uint64(5) {
					m := m
					m.run(seed)
					require.Less(t, m.longest, max(10*gap, 10*m.interval), "seed %d", seed)
				}
			})
		}
	}
}
