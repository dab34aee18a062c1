package cluster

import (
	"hash/fnv"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// A task that has always something to do shows what it puts out before it has done sixteen of its steps, which are as large as can be here.
func TestABusyTaskShowsWhatItHas(t *testing.T) {
	const n = 24 * task.DefaultMaxElements
	var read, seen atomic.Uint64
	job := operator.NewJob("rare")
	codec := operator.WithCodec[uint64](numberCodec{})
	all := operator.From(job, "numbers", numbers{splits: 1, n: n}, codec)
	rare := operator.Filter(all, "the first", func(_ operator.Context, v uint64) (bool, error) {
		sum, work := fnv.New64a(), [4096]byte{byte(v)}
		_, err := sum.Write(work[:]) // some microseconds
		return read.Add(1) == 1 && sum.Sum64() > 0, err
	}, codec)
	shown := operator.Map(operator.Rebalanced(rare), "look", func(_ operator.Context, v uint64) (uint64, error) {
		seen.Store(read.Load())
		return v, nil
	}, codec)
	dir := t.TempDir()
	operator.To(shown, "output", file.Sink(filepath.Join(dir, "out"), file.SinkOptions{}), operator.WithCodec(operator.JSON[uint64]()))
	plan, err := job.Plan(1)
	require.NoError(t, err)
	_, err = RunLocal(t.Context(), plan, LocalOptions{StateDir: filepath.Join(dir, "state")})
	require.NoError(t, err)
	require.Equal(t, 1, countLines(t, filepath.Join(dir, "out")))
	require.EqualValues(t, n, read.Load())
	require.Less(t, seen.Load(), uint64(15*task.DefaultMaxElements))
	t.Logf("seen after %d records", seen.Load())
}
