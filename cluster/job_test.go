package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// blindSink is a causal sink that is never opened.
type blindSink struct{}

func (blindSink) Open(context.Context, int, int) (operator.CausalStore, error) { return nil, nil }

// diamondJob is a source of two tasks, two ways, and a union of three tasks with a sink; one way also ends in the open.
//
//	tasks: in 0 1, left 2 3, right 4 5 6, both 7 8 9, aside 10
func diamondJob(t *testing.T) *Job {
	t.Helper()
	job := operator.NewJob("diamond")
	in := operator.From(job, "in", numbers{splits: 5, n: 1}, operator.Parallelism(2))
	same := func(_ operator.Context, v uint64) (uint64, error) { return v, nil }
	left := operator.Map(in, "left", same, operator.Parallelism(2))
	right := operator.Map(operator.Rebalanced(in), "right", same, operator.Parallelism(3))
	both := operator.Union("both", left, right)
	operator.To(both, "sink", blindSink{}, operator.Parallelism(3))
	operator.ForEach(operator.Broadcasted(left), "aside", func(operator.Context, uint64) error { return nil }, operator.Parallelism(1))
	plan, err := job.Plan(3)
	require.NoError(t, err)
	j, err := Layout(plan)
	require.NoError(t, err)
	return j
}

func TestLayoutNumbersTasksAndChannels(t *testing.T) {
	j := diamondJob(t)
	var names []string
	for i, spec := range j.Tasks {
		require.Equal(t, determinant.TaskID(i), spec.ID)
		names = append(names, fmt.Sprintf("%s %d/%d", spec.Info.Vertex, spec.Info.Index, spec.Info.Parallelism))
	}
	require.Equal(t, []string{
		"in 0/2", "in 1/2", "left 0/2", "left 1/2", "right 0/3", "right 1/3", "right 2/3",
		"both -> sink 0/3", "both -> sink 1/3", "both -> sink 2/3", "aside 0/1",
	}, names)
	require.Equal(t, []determinant.TaskID{0, 1}, j.sources())
	require.Equal(t, []determinant.TaskID{7, 8, 9}, j.Topology.Sinks)
	require.Equal(t, []determinant.TaskID{10}, j.Topology.Open)
	require.Equal(t, []determinant.TaskID{2, 4, 5, 6}, j.Topology.Down[0])
	require.Equal(t, []determinant.TaskID{3, 4, 5, 6}, j.Topology.Down[1], "a forward edge joins tasks of one index")
}

// Both ends of each channel name each other.
func TestLayoutConnectsBothEndsOfEachChannel(t *testing.T) {
	j := diamondJob(t)
	inputs := make([]int, len(j.Tasks))
	for id, c := range j.Channels {
		outputs := slices.Concat(j.Tasks[c.From].Edges...)
		if c.External {
			require.True(t, j.Tasks[c.From].External)
			require.Equal(t, determinant.ChannelID(id), j.Tasks[c.From].ExtID)
			require.Len(t, outputs, c.Output, "the external channel is the last output")
			continue
		}
		require.Equal(t, determinant.ChannelID(id), outputs[c.Output])
		require.Equal(t, determinant.ChannelID(id), j.Tasks[c.To].Inputs[c.Input].Channel)
		inputs[c.To]++
	}
	for i, spec := range j.Tasks {
		require.Len(t, spec.Inputs, inputs[i])
	}
	var from []determinant.TaskID
	var logical []int
	for _, in := range j.Tasks[7].Inputs {
		from, logical = append(from, j.Channels[in.Channel].From), append(logical, in.Logical)
	}
	require.Equal(t, []determinant.TaskID{2, 3, 4}, from)
	require.Equal(t, []int{0, 0, 1}, logical, "the union's first input is left, its second right")
}

func TestLayoutRefusesAForwardEdgeBetweenUnequals(t *testing.T) {
	j := diamondJob(t)
	plan := *j.Plan
	plan.Edges = slices.Clone(plan.Edges)
	for i := range plan.Edges {
		plan.Edges[i].Partition = operator.Forward
	}
	_, err := Layout(&plan)
	require.ErrorContains(t, err, "forward edge from")
}

func TestLayoutRefusesACycle(t *testing.T) {
	j := diamondJob(t)
	plan := *j.Plan
	plan.Edges = append(slices.Clone(plan.Edges), operator.Edge{From: 3, To: 2, Partition: operator.Rebalance})
	_, err := Layout(&plan)
	require.Error(t, err)
}

// Each split is read by exactly one task, and by the same one however many come behind it.
func TestShareOfSplitsIsDisjointAndComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "tasks")
		v := View{Splits: [][]string{nil}, Stages: [][]Stage{{{From: 1}}}}
		add := func() {
			g := Grow{Known: len(v.Splits[0]), From: v.newest() + 2}
			for range rapid.IntRange(1, 8).Draw(t, "splits") {
				g.Splits = append(g.Splits, fmt.Sprint(len(v.Splits[0])+len(g.Splits)))
			}
			require.True(t, v.admits(&g))
			v.grown(&g, 0)
		}
		before := make([]task.Splits, n)
		for range 5 {
			add()
			v.started(&checkpoint.Start{Epoch: v.newest() + 1})
			if rapid.Bool().Draw(t, "completed") {
				v.completed(&checkpoint.Complete{Epoch: v.newest()})
			}
			var all []string
			for i := range n {
				spec := &TaskSpec{Info: operator.TaskInfo{Index: i, Parallelism: n}}
				share := v.splitsOf(&Job{}, spec)
				require.InDelta(t, len(v.Splits[0])/n, len(share.List), 1)
				require.Zero(t, share.Final)
				for k, s := range share.List {
					all = append(all, s.Identity)
					require.LessOrEqual(t, s.From, v.newest()+1, "a checkpoint was started since the last came")
					if k < len(before[i].List) {
						require.Equal(t, before[i].List[k].Identity, s.Identity)
					}
				}
				before[i] = share
			}
			require.ElementsMatch(t, v.Splits[0], all)
		}
		require.Equal(t, task.Splits{Final: 1}, v.splitsOf(&Job{}, &TaskSpec{Vertex: 1}))
	})
}

// What a peer may depend on comes downstream first, whatever the consumers are.
func TestLogsOfADeltaComeDownstreamFirst(t *testing.T) {
	j := diamondJob(t)
	consumers := make([]bool, len(j.Tasks))
	consumers[7], consumers[2] = true, true
	require.ElementsMatch(t, []determinant.TaskID{0, 1, 2, 3, 4}, j.relevant(consumers, determinant.Full))
	require.ElementsMatch(t, []determinant.TaskID{0, 2, 3, 4}, j.relevant(consumers, 1))
	for _, order := range [][]determinant.TaskID{j.relevant(consumers, determinant.Full), j.storeOrder(8, determinant.Full)} {
		at := map[determinant.TaskID]int{}
		for i, id := range order {
			at[id] = i
		}
		for from, down := range j.Topology.Down {
			for _, to := range down {
				if i, ok := at[determinant.TaskID(from)]; ok {
					if k, ok := at[to]; ok {
						require.Less(t, k, i, "%d is downstream of %d", to, from)
					}
				}
			}
		}
	}
}

// A store is the sink's neighbour: what lies within d hops of it, the sink itself being one hop away.
func TestAStoreKeepsWhatLiesWithinTheSharingDepth(t *testing.T) {
	j := diamondJob(t)
	require.Equal(t, []determinant.TaskID{7}, j.storeOrder(7, 1))
	require.ElementsMatch(t, []determinant.TaskID{7, 2, 3, 4}, j.storeOrder(7, 2))
	require.ElementsMatch(t, []determinant.TaskID{7, 2, 3, 4, 0, 1}, j.storeOrder(7, 3))
	require.ElementsMatch(t, []determinant.TaskID{7, 2, 3, 4, 0, 1}, j.storeOrder(7, determinant.Full))
}
