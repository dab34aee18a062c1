package cluster

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
)

func placements(incarnations ...determinant.Incarnation) (list []standby.Placement) {
	for t, inc := range incarnations {
		list = append(list, standby.Placement{Task: determinant.TaskID(t), Incarnation: inc, Worker: determinant.WorkerID(t + 1)})
	}
	return list
}

func TestAViewIsWhatTheEntriesSay(t *testing.T) {
	job := small(t)
	v := NewView(job, nil, determinant.ExactlyOnce, determinant.Full)
	require.Zero(t, v.committed())
	require.Equal(t, make([]determinant.LogOffset, 4), v.offsets())
	changed := v.place(&standby.Decision{Round: 1, Tasks: placements(1, 1, 1, 1), Hear: []determinant.WorkerID{1, 2, 3, 4}})
	require.Equal(t, []determinant.TaskID{0, 1, 2, 3}, changed)
	changed = v.place(&standby.Decision{Round: 2, Tasks: placements(1, 2, 1, 3), Dead: []determinant.WorkerID{2, 4}})
	require.Equal(t, []determinant.TaskID{1, 3}, changed, "those whose incarnation rose")
	require.True(t, v.dead(4))
	require.False(t, v.live(4))
	require.True(t, v.live(3))
	require.False(t, v.live(0), "0 is nobody")

	v.Complete = completion(job, 7).Complete
	require.Equal(t, determinant.Epoch(7), v.committed())
	log, life := v.base(2)
	require.Equal(t, determinant.LogOffset(702), log)
	require.Equal(t, determinant.Incarnation(1), life)
	require.Equal(t, []determinant.LogOffset{700, 701, 702, 703}, v.offsets())
}

// A rollback is cut at the checkpoint that was the last when it was decided, whatever is completed later.
func TestARollbackCutsAtTheLastCheckpoint(t *testing.T) {
	job := small(t)
	v := NewView(job, nil, determinant.ExactlyOnce, determinant.Full)
	v.place(&standby.Decision{Round: 1, Tasks: placements(1, 1, 1, 1)})
	require.Nil(t, v.fence(2).Cut, "there was no rollback")
	v.place(&standby.Decision{Round: 2, Generation: 1, Tasks: placements(2, 2, 2, 2)})
	require.Equal(t, operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{
		Cursor: determinant.Cursor{Epoch: 1}, Logs: make([]determinant.LogOffset, 4),
	}}, v.fence(2), "nothing was committed: everything goes")

	v.Complete = completion(job, 3).Complete
	v.Asides = []Aside{{Task: 2}}
	v.place(&standby.Decision{Round: 3, Generation: 2, Tasks: placements(3, 3, 3, 3)})
	require.Equal(t, operator.Fence{Incarnation: 3, Generation: 2, Cut: &operator.Cut{
		Cursor: determinant.Cursor{Next: 30, Epoch: 4}, Logs: []determinant.LogOffset{300, 301, 302, 303},
	}}, v.fence(2))

	v.Complete = completion(job, 4).Complete
	v.place(&standby.Decision{Round: 4, Generation: 2, Tasks: placements(3, 3, 4, 3)})
	f := v.fence(2)
	require.Equal(t, determinant.Incarnation(4), f.Incarnation)
	require.Equal(t, determinant.Epoch(4), f.Cut.Cursor.Epoch, "the cut stays where the newest rollback made it")
}

// A view that was handed out does not change.
func TestACloneOfAViewDoesNotChange(t *testing.T) {
	v := NewView(small(t), nil, determinant.ExactlyOnce, determinant.Full)
	v.place(&standby.Decision{Round: 1, Tasks: placements(1, 1, 1, 1)})
	c := v.clone()
	want := slices.Clone(c.Places)
	v.Places[2].Recovering = true
	v.setAside(Aside{Task: 1})
	v.started(&checkpoint.Start{Epoch: 1})
	require.Equal(t, want, c.Places)
	require.Empty(t, c.Asides)
	require.Empty(t, c.Opened)
}

func TestChaosIsParsed(t *testing.T) {
	for text, want := range map[string]Chaos{
		"kill=200ms":                             {Kill: 200e6},
		"kill=1s,target=worker":                  {Kill: 1e9, Target: TargetWorker},
		"target=task,kill=1500us":                {Kill: 1500e3, Target: TargetTask},
		"kill=1s,kill=2s":                        {Kill: 2e9},
		"target=worker,kill=1h30m":               {Kill: 5400e9, Target: TargetWorker},
		"kill=1s,target=worker+two+all":          {Kill: 1e9, Target: "worker+two+all"},
		"kill=1s,target=coordinator,seed=4":      {Kill: 1e9, Target: TargetCoordinator, Seed: 4},
		"pause=5s,for=3s,link=2s,limit=7":        {Pause: 5e9, For: 3e9, Link: 2e9, Limit: 7},
		"link=2s":                                {Link: 2e9},
		"kill=1s,target=standby,pause=1s,seed=0": {Kill: 1e9, Target: TargetStandby, Pause: 1e9},
	} {
		got, err := ParseChaos(text)
		require.NoError(t, err, text)
		require.Equal(t, want, *got, text)
	}
	for text, why := range map[string]string{
		"":                       "unknown key",
		"target=task":            "names no kill",
		"seed=4":                 "names no kill",
		"pause=1s,target=worker": "target=worker without kill",
		"kill=1s,for=2s":         "for=2s without pause",
		"kill=1s,pause=-1s":      "not a positive duration",
		"link=1":                 "not a positive duration",
		"kill=":                  "not a positive duration",
		"kill=0s":                "not a positive duration",
		"kill=-1s":               "not a positive duration",
		"kill=fast":              "not a positive duration",
		"kill=1s,target=planet":  "want task, worker",
		"kill=1s,target=":        "want task, worker",
		"kill=1s,seed=-4":        `seed="-4"`,
		"kill=1s,limit=0":        `limit="0"`,
		"kill=1s,target=two+one": "want task, worker",
		"kill=1s,target=two+":    "want task, worker",
		"kill=1s,":               "unknown key",
		"kill = 1s":              "unknown key",
		"kill=1s;target=worker":  "not a positive duration",
		"kill=1s,Target=worker":  "unknown key",
		"kill=1s,target=Worker ": "want task, worker",
	} {
		_, err := ParseChaos(text)
		require.ErrorContains(t, err, why, "%q", text)
		require.ErrorContains(t, err, "cluster: ", text)
	}
}
