package cluster

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// numbers is a source of n numbers in each of a few splits; a number and its offset are the same.
type numbers struct{ splits, n int }

func (s numbers) Splits(context.Context) ([]string, error) {
	return strings.Split(strings.Repeat("split,", s.splits-1)+"split", ","), nil
}

func (s numbers) Open(_ context.Context, _ string, offset uint64) (operator.Reader[uint64], error) {
	return &numberReader{at: offset, n: uint64(s.n)}, nil
}

type numberReader struct{ at, n uint64 }

func (r *numberReader) Next() (uint64, uint64, error) {
	if r.at == r.n {
		return 0, 0, io.EOF
	}
	r.at++
	return r.at - 1, r.at, nil
}

func (r *numberReader) Ready() <-chan struct{} { return nil }
func (r *numberReader) Close() error           { return nil }

// numberCodec codes a number in eight bytes and some padding.
type numberCodec struct{ pad int }

func (c numberCodec) Append(dst []byte, v uint64) ([]byte, error) {
	return append(binary.BigEndian.AppendUint64(dst, v), make([]byte, c.pad)...), nil
}

func (c numberCodec) Decode(src []byte) (uint64, error) { return binary.BigEndian.Uint64(src), nil }

// gatedSink lets writes through only while its gate is open.
type gatedSink struct {
	operator.CausalSink
	gate <-chan struct{}
}

type gatedStore struct {
	operator.CausalStore
	gate <-chan struct{}
}

func (s gatedSink) Open(ctx context.Context, task, n int) (operator.CausalStore, error) {
	store, err := s.CausalSink.Open(ctx, task, n)
	return gatedStore{store, s.gate}, err
}

func (s gatedStore) Write(ctx context.Context, inc determinant.Incarnation, w operator.StoreWrite) error {
	select {
	case <-s.gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.CausalStore.Write(ctx, inc, w)
}

// numbersJob sends numbers through a shuffle and a clock reading to a sink.
func numbersJob(n, pad int, sink operator.CausalSink) (*operator.Plan, error) {
	job := operator.NewJob("numbers")
	codec := operator.WithCodec[uint64](numberCodec{pad})
	all := operator.From(job, "numbers", numbers{splits: 2, n: n / 2}, codec)
	seen := operator.Map(operator.Rebalanced(all), "look at the clock", func(ctx operator.Context, v uint64) (uint64, error) {
		if ctx.Now().IsZero() {
			v = 0
		}
		return v, nil
	}, codec)
	operator.To(seen, "output", sink, operator.WithCodec(operator.JSON[uint64]()))
	return job.Plan(2)
}

func countLines(t *testing.T, dir string) int {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	require.NoError(t, err)
	n := 0
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		n += strings.Count(string(data), "\n")
	}
	return n
}

// poll calls f every few milliseconds until stop is called.
func poll(f func()) (stop func()) {
	done, running := make(chan struct{}), sync.WaitGroup{}
	running.Go(func() {
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				f()
			}
		}
	})
	return func() { close(done); running.Wait() }
}

// While the sink takes nothing, no checkpoint completes and nothing is truncated: output piles up until the budget is used,
// then the sources wait. Memory stays within its budget and the rest is spilled. When the sink takes output again, all of it
// comes.
func TestInflightBudgetHoldsWithAStalledConsumer(t *testing.T) {
	const records, memory, disk, reserve = 60_000, 2 << 20, 4 << 20, 16 << 20
	dir, gate := t.TempDir(), make(chan struct{})
	sink := gatedSink{file.Sink(filepath.Join(dir, "out"), file.SinkOptions{Identity: "numbers"}), gate}
	plan, err := numbersJob(records, 500, sink)
	require.NoError(t, err)
	var mostMemory, mostDisk int64
	var opened sync.Once
	var stop func()
	sum, err := RunLocal(t.Context(), plan, LocalOptions{
		StateDir: filepath.Join(dir, "state"), InflightMemory: memory, InflightDisk: disk, InflightReserve: reserve,
		CheckpointInterval: 50 * time.Millisecond,
		Started: func(l *Local) {
			var still, last int64
			stop = poll(func() {
				m, d := l.InflightBytes()
				mostMemory, mostDisk = max(mostMemory, m), max(mostDisk, d)
				if still++; m+d != last {
					still, last = 0, m+d
				}
				if d > disk/2 && still > 50 { // nothing moves any more
					opened.Do(func() { close(gate) })
				}
			})
		},
	})
	stop()
	require.NoError(t, err)
	require.LessOrEqual(t, mostMemory, int64(memory))
	require.LessOrEqual(t, mostDisk, int64(disk+reserve))
	require.Greater(t, mostDisk, int64(disk/2), "it did spill")
	require.EqualValues(t, records, sum.RecordsIn)
	require.Equal(t, records, countLines(t, filepath.Join(dir, "out")))
}

// askingJob calls out for each of n numbers, so that each costs some twenty bytes of determinants.
func askingJob(n int, sink operator.CausalSink) (*operator.Plan, error) {
	job := operator.NewJob("asking")
	codec := operator.WithCodec[uint64](numberCodec{})
	all := operator.From(job, "numbers", numbers{splits: 2, n: n / 2}, codec)
	told := operator.Map(operator.Rebalanced(all), "ask", func(ctx operator.Context, v uint64) (uint64, error) {
		answer, err := ctx.Call(binary.BigEndian.AppendUint64(nil, v), func(_ context.Context, request []byte) ([]byte, error) {
			return request, nil
		})
		if err != nil {
			return 0, err
		}
		return binary.BigEndian.Uint64(answer), nil
	}, codec)
	operator.To(told, "output", sink, operator.WithCodec(operator.JSON[uint64]()))
	return job.Plan(2)
}

// Over a million records a worker never holds more than a part of the determinants: checkpoints free the rest. All of them
// would be within the budget, so it is not that which holds the sources back.
func TestDeterminantLogsStayBounded(t *testing.T) {
	records, share := 1_000_000, uint64(3)
	if raceEnabled {
		records, share = 200_000, 2 // few checkpoints come in so short a time
	}
	dir := t.TempDir()
	plan, err := askingJob(records, file.Sink(filepath.Join(dir, "out"), file.SinkOptions{Identity: "asking"}))
	require.NoError(t, err)
	var most int64
	var stop func()
	sum, err := RunLocal(t.Context(), plan, LocalOptions{
		CheckpointInterval: 50 * time.Millisecond,
		Started:            func(l *Local) { stop = poll(func() { most = max(most, l.LogBytes()) }) },
	})
	stop()
	require.NoError(t, err)
	require.Equal(t, records, countLines(t, filepath.Join(dir, "out")))
	require.Greater(t, sum.DeterminantBytes, uint64(16*records))
	require.Less(t, sum.DeterminantBytes, uint64(DefaultLogBudget))
	require.Less(t, most, int64(sum.DeterminantBytes/share))
	t.Logf("%d records, %d bytes of determinants in all, at most %d held by one worker", records, sum.DeterminantBytes, most)
}
