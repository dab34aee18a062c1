package cluster

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/understudy-stream/understudy/task"
)

// What the coordinator's policies look for in a failure is still there when the failure comes from another process.
func TestFailureCrossesProcesses(t *testing.T) {
	for i, want := range sentinels {
		body, err := msgpack.Marshal(&Report{Failed: &TaskFailure{Task: 3, Incarnation: 4, Worker: 5, Err: fmt.Errorf("while testing: %w", want)}})
		require.NoError(t, err)
		var r Report
		require.NoError(t, msgpack.Unmarshal(body, &r))
		require.EqualValues(t, 3, r.Failed.Task)
		require.EqualValues(t, 4, r.Failed.Incarnation)
		require.EqualValues(t, 5, r.Failed.Worker)
		require.EqualError(t, r.Failed.Err, "while testing: "+want.Error())
		for j, s := range sentinels {
			require.Equal(t, i == j, errors.Is(r.Failed.Err, s), "%v against %v", want, s)
		}
	}
	poison := &task.Poison{Task: 1, Operator: "parse", Known: true, Record: []byte("x"), Err: errors.New("bad")}
	body, err := msgpack.Marshal(&TaskFailure{Err: poison})
	require.NoError(t, err)
	var f TaskFailure
	require.NoError(t, msgpack.Unmarshal(body, &f))
	var got *task.Poison
	require.ErrorAs(t, f.Err, &got)
	require.True(t, got.Same(poison))
	require.Equal(t, poison.Error(), got.Error())
}
