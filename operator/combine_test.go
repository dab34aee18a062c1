package operator

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	errNine  = errors.New("nine")
	firedSum = regexp.MustCompile(`(\d \[-?\d+,-?\d+\)) (-?\d+)`)
)

// combinedJob sums values by key, some of which fail after they were taken in.
func combinedJob(w Windows) *Job {
	j := NewJob("combined")
	in := FlatMap(Rebalanced(numbers(j, "in")), "twice", func(_ Context, v int, emit func(int)) error {
		emit(v)
		if v == 9 {
			return errNine
		}
		return nil
	})
	sums, _ := Window(KeyBy(in, byMod(3)), "win", w, Aggregator[int, int, int, string]{
		Init:  func() int { return 100 },
		Add:   func(acc, v int) (int, error) { return acc + v, nil },
		Merge: func(a, b int) (int, error) { return a + b - 100, nil },
		Emit: func(_ Context, key int, w WindowInfo, acc int, emit func(string)) error {
			emit(fmt.Sprintf("%d [%d,%d) %d", key, w.Start.UnixMilli(), w.End.UnixMilli(), acc))
			return nil
		},
	}, Combined(), Parallelism(1))
	To(sums, "out", nowhere{})
	return j
}

// stepOf runs records in one step of the vertex that combines, and gives what comes out.
func stepOf(h *harness, values []int, times []int64) []string {
	for i, v := range values {
		err := h.chain.Record(0, []byte{byte(v)}, times[i], true)
		if v == 9 {
			require.ErrorIs(h, err, errNine)
			h.chain.Rewind()
			continue
		}
		require.NoError(h, err)
	}
	require.NoError(h, h.chain.StepEnd())
	return h.take()
}

// What is combined by steps, in whatever way the records fall into steps, makes the windows that single records make. A record that fails
// leaves nothing.
func TestCombinedWindows(t *testing.T) {
	for _, w := range []Windows{Tumbling(10 * ms), Sliding(20*ms, 10*ms), Sliding(25*ms, 10*ms)} {
		t.Run(fmt.Sprint(w.kind, w.size), rapid.MakeCheck(func(r *rapid.T) {
			up, down := newHarness(r, combinedJob(w), "win/combine", 1), newHarness(r, combinedJob(w), "win", 1)
			var sent [][]byte
			up.rt.outputs[0].print = func(b []byte) string {
				sent = append(sent, append([]byte(nil), b...))
				return ""
			}
			want := map[string]int{}
			for range rapid.IntRange(1, 8).Draw(r, "steps") {
				values := rapid.SliceOfN(rapid.IntRange(0, 12), 0, 12).Draw(r, "values")
				times := rapid.SliceOfN(rapid.Int64Range(0, 60), len(values), len(values)).Draw(r, "times")
				sent = nil
				for i, line := range stepOf(up, values, times) {
					var at int64
					_, err := fmt.Sscanf(line, "out0.0@%d", &at)
					require.NoError(r, err)
					down.recordAt(0, sent[i], at)
				}
				for i, v := range values {
					for s := w.last(times[i]); s.end > times[i] && v != 9; s = s.before(w.slide) {
						want[fmt.Sprintf("%d [%d,%d)", v%3, s.start, s.end)] += v
					}
				}
				if rapid.Bool().Draw(r, "restart") {
					up.restart()
				}
			}
			down.end()
			got := map[string]int{}
			for _, line := range down.take() {
				if found := firedSum.FindStringSubmatch(line); found != nil {
					sum, err := strconv.Atoi(found[2])
					require.NoError(r, err)
					got[found[1]] = sum - 100
				}
			}
			require.Equal(r, want, got)
		}))
	}
}

// A watermark overtakes nothing that is held.
func TestCombinedBeforeWatermark(t *testing.T) {
	h := newHarness(t, combinedJob(Tumbling(10*ms)), "win/combine", 1)
	require.NoError(t, h.chain.Record(0, []byte{4}, 3, true))
	require.NoError(t, h.chain.Record(0, []byte{7}, 5, true))
	require.Empty(t, h.take())
	require.NoError(t, h.chain.Watermark(9))
	out := h.take()
	require.Len(t, out, 2)
	require.Contains(t, out[0], "@3")
	require.Contains(t, out[1], "wm 9")
}

func TestRestartCombined(t *testing.T) {
	metamorphic(t, func() (*Job, string) {
		j := NewJob("window")
		fired, _ := Window(KeyBy(Rebalanced(numbers(j, "in")), byMod(3)), "win", Tumbling(20*time.Millisecond), Aggregator[int, int, int, int]{
			Add:   func(acc, v int) (int, error) { return acc + v, nil },
			Merge: func(a, b int) (int, error) { return a + b, nil },
			Emit:  func(_ Context, _ int, _ WindowInfo, acc int, emit func(int)) error { emit(acc); return nil },
		}, Combined())
		To(fired, "out", nowhere{})
		return j, "win/combine"
	}, script{inputs: 1, values: 9})
}
