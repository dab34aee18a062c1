package checkpoint

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

// underWay gives a coordinator of three tasks with a checkpoint under way that nobody has acknowledged, and one that follows it.
func underWay(with Start) (leader, follower *Coordinator) {
	s := NewState(3, determinant.ExactlyOnce, 2)
	make := func() *Coordinator {
		return NewCoordinator(Config{Sources: []determinant.TaskID{0}, Interval: 1000}, s)
	}
	leader, follower = make(), make()
	leader.Step(Leader{})
	leader.Step(Tick{Now: 1})
	leader.Step(Tick{Now: 9500})
	leader.Step(Committed{Command: with})
	leader.Step(Tick{Now: 10000})
	follower.Step(Committed{Command: with})
	return leader, follower
}

// dies is where tasks are when the last one has died and recovers.
var dies = Placed{
	Incarnations: []determinant.Incarnation{1, 1, 2}, Standbys: make([][]determinant.WorkerID, 3), Recovering: []bool{false, false, true}, Handed: make([]bool, 3),
}

func proposes(effects []Effect) (commands []Command) {
	for _, e := range effects {
		if p, ok := e.(Propose); ok {
			commands = append(commands, p.Command)
		}
	}
	return commands
}

// Where tasks wait for the barrier in spite of it, a checkpoint is not abandoned.
func TestACheckpointThatChangesTheDepthGoesOn(t *testing.T) {
	c, _ := underWay(Start{Epoch: 1, Mode: determinant.ExactlyOnce, Depth: 2})
	require.Equal(t, []Command{Abandon{Epoch: 1}}, proposes(c.Step(dies)))
	c, _ = underWay(Start{Epoch: 1, Mode: determinant.ExactlyOnce, Depth: 1})
	require.Empty(t, proposes(c.Step(dies)))
}

// A new leader, which has heard of no acknowledgement yet, abandons nothing for a death before its time.
func TestANewLeaderAbandonsNothingForAnOldDeath(t *testing.T) {
	_, c := underWay(Start{Epoch: 1, Mode: determinant.ExactlyOnce, Depth: 2})
	c.Step(dies)
	require.Empty(t, proposes(c.Step(Leader{})))
	require.Empty(t, proposes(c.Step(Tick{Now: 10000})))
	require.Empty(t, proposes(c.Step(Tick{Now: 19000})))
}

// Workers that die together are noticed one after the other. They count as one death, which stands alone; one that comes later does not.
func TestDeathsAtOnceAreOne(t *testing.T) {
	another := dies
	another.Incarnations, another.Recovering = []determinant.Incarnation{1, 2, 2}, []bool{false, true, true}
	started := func(after int64) bool {
		c, _ := underWay(Start{Epoch: 1, Mode: determinant.ExactlyOnce, Depth: 2})
		require.Equal(t, []Command{Abandon{Epoch: 1}}, proposes(c.Step(dies)))
		c.Step(Committed{Command: Abandon{Epoch: 1}})
		require.Empty(t, proposes(c.Step(Tick{Now: 10000 + after})))
		require.Empty(t, proposes(c.Step(another)))
		return len(proposes(c.Step(Tick{Now: 9500 + 1500}))) > 0
	}
	require.False(t, started(AtOnce-1), "it waits for the recovery, as it does after one death")
	require.True(t, started(AtOnce))
}

// After a short recovery a checkpoint waits until sources have caught up, for as long again; one that somebody asks for does not wait, nor does
// any after a long one.
func TestCheckpointsWaitForSourcesToCatchUp(t *testing.T) {
	recovered := dies
	recovered.Recovering = make([]bool, 3)
	began := func(took int64) *Coordinator {
		c, _ := underWay(Start{Epoch: 1, Mode: determinant.ExactlyOnce, Depth: 2})
		require.Equal(t, []Command{Abandon{Epoch: 1}}, proposes(c.Step(dies)))
		c.Step(Committed{Command: Abandon{Epoch: 1}})
		require.Empty(t, proposes(c.Step(Tick{Now: 10000 + took})))
		return c
	}
	c := began(20)
	require.Empty(t, proposes(c.Step(recovered)))
	require.Empty(t, proposes(c.Step(Tick{Now: 10039})))
	require.Len(t, proposes(c.Step(Tick{Now: 10040})), 1)
	require.Len(t, proposes(began(251).Step(recovered)), 1)
	c = began(20)
	require.Empty(t, proposes(c.Step(recovered)))
	require.Len(t, proposes(c.Step(Request{})), 1)
}
