package standby

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
)

// drawTopology draws a graph without cycles, whose ids need not follow the flow.
func drawTopology(t *rapid.T) *Topology {
	n := rapid.IntRange(1, 7).Draw(t, "tasks")
	rank := rapid.Permutation(ints(n)).Draw(t, "rank") // edges go from lower to higher rank
	top := &Topology{Tasks: n, Down: make([][]determinant.TaskID, n)}
	for a := range n {
		for b := range n {
			if rank[a] < rank[b] && rapid.IntRange(0, 2).Draw(t, "edge") == 0 {
				top.Down[a] = append(top.Down[a], determinant.TaskID(b))
			}
		}
		if len(top.Down[a]) == 0 {
			if rapid.IntRange(0, 2).Draw(t, "open") == 0 {
				top.Open = append(top.Open, determinant.TaskID(a))
			} else {
				top.Sinks = append(top.Sinks, determinant.TaskID(a))
			}
		}
	}
	return top
}

func ints(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// walk visits every path from a failed task through failed tasks, in the plainest way.
func walk(t *Topology, failed []bool, at determinant.TaskID, hops int, arrive func(hops int)) {
	if slices.Contains(t.Sinks, at) {
		arrive(hops + 1)
	}
	if slices.Contains(t.Open, at) {
		arrive(hops)
	}
	for _, to := range t.Down[at] {
		if failed[to] {
			walk(t, failed, to, hops+1, arrive)
		} else {
			arrive(hops + 1)
		}
	}
}

func TestRecoverableLooksAtEveryPath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top := drawTopology(t)
		failed := rapid.SliceOfN(rapid.Bool(), top.Tasks, top.Tasks).Draw(t, "failed")
		depth := determinant.Depth(rapid.IntRange(1, 5).Draw(t, "depth"))
		want := true
		for id := range failed {
			if failed[id] {
				walk(top, failed, determinant.TaskID(id), 0, func(hops int) { want = want && hops <= int(depth) })
			}
		}
		got, why := top.Recoverable(failed, depth)
		require.Equal(t, want, got, why)
		require.Equal(t, want, why == "")
		always, _ := top.Recoverable(failed, determinant.Full)
		require.True(t, always)
	})
}

func TestOrderAndUpstream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top := drawTopology(t)
		require.NoError(t, top.Validate())
		order := top.Order()
		require.Len(t, order, top.Tasks)
		for from, down := range top.Down {
			for _, to := range down {
				require.Less(t, slices.Index(order, to), slices.Index(order, determinant.TaskID(from)), "downstream first")
			}
		}
		id := determinant.TaskID(rapid.IntRange(0, top.Tasks-1).Draw(t, "of"))
		depth := determinant.Depth(rapid.IntRange(1, 3).Draw(t, "depth"))
		got := top.Upstream(id, depth)
		require.NotContains(t, got, id)
		require.Subset(t, top.Upstream(id, determinant.Full), got)
		require.True(t, slices.IsSortedFunc(got, func(a, b determinant.TaskID) int { return slices.Index(order, a) - slices.Index(order, b) }))
	})
}

func TestUpstreamByHops(t *testing.T) {
	top := topologyNamed("skew")
	for depth, want := range map[determinant.Depth][]determinant.TaskID{1: {3}, 2: {3, 2, 0}, 3: {3, 2, 1, 0}, determinant.Full: {3, 2, 1, 0}} {
		require.Equal(t, want, top.Upstream(4, depth), "depth %v", depth)
	}
	require.Empty(t, top.Upstream(0, determinant.Full))
}

func TestTopologyValidate(t *testing.T) {
	for name, top := range map[string]*Topology{
		"cycle":     {Tasks: 2, Down: ids([]int{1}, []int{0})},
		"successor": {Tasks: 2, Down: ids([]int{2}, nil)},
		"length":    {Tasks: 2, Down: ids(nil)},
		"sink":      {Tasks: 1, Down: ids(nil), Sinks: []determinant.TaskID{1}},
		"open":      {Tasks: 1, Down: ids(nil), Open: []determinant.TaskID{1}},
	} {
		require.ErrorContains(t, top.Validate(), "standby: topology", name)
	}
}

// AutoDepth is the least depth at which every loss of up to f workers is recoverable.
func TestAutoDepthIsTheLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top := drawTopology(t)
		workers := rapid.IntRange(1, 4).Draw(t, "workers")
		place := make(ws, top.Tasks)
		for i := range place {
			place[i] = determinant.WorkerID(rapid.IntRange(1, workers).Draw(t, "place"))
		}
		f := rapid.IntRange(0, 4).Draw(t, "f")
		covers := func(d determinant.Depth) bool {
			for lost := range 1 << workers {
				failed := make([]bool, top.Tasks)
				dead := 0
				for w := range workers {
					if lost&(1<<w) != 0 {
						dead++
						mark(failed, place, determinant.WorkerID(w+1), true)
					}
				}
				if ok, _ := top.Recoverable(failed, d); dead <= f && !ok {
					return false
				}
			}
			return true
		}
		d := AutoDepth(top, place, f)
		require.True(t, covers(d), "depth %v", d)
		require.True(t, d == 1 || !covers(d-1), "depth %v is not the least", d)
	})
}

func TestAutoDepthGivesUpOnTooMany(t *testing.T) {
	top := line(200)
	place := make(ws, 200)
	for i := range place {
		place[i] = determinant.WorkerID(i + 1)
	}
	require.Equal(t, determinant.Depth(2), AutoDepth(top, place, 2))
	require.Equal(t, determinant.Full, AutoDepth(top, place, 5))
}

func BenchmarkRecoverable(b *testing.B) {
	top := layers(50, 50, 50, 50)
	failed := make([]bool, top.Tasks)
	for i := range failed {
		failed[i] = i%3 == 0
	}
	for b.Loop() {
		top.Recoverable(failed, 2)
	}
}
