package operator

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// sumJob adds the values of each window up. With Merge, sliding windows are made of slices.
func sumJob(w Windows, merge bool) *Job {
	a := Aggregator[int, int, int, string]{
		Add: func(acc, v int) (int, error) { return acc + v + 1, nil },
		Emit: func(_ Context, key int, w WindowInfo, acc int, emit func(string)) error {
			emit(fmt.Sprintf("%d [%d,%d) %d", key, w.Start.UnixMilli(), w.End.UnixMilli(), acc))
			return nil
		},
	}
	if merge {
		a.Merge = func(a, b int) (int, error) { return a + b, nil }
	}
	j := NewJob("window")
	fired, late := Window(KeyBy(numbers(j, "in"), byMod(3)), "win", w, a)
	To(fired, "out", nowhere{})
	To(late, "late", nowhere{})
	return j
}

// Windows that are put together of slices show what whole ones do, at the same moments, also where they are frozen and restored
// on the way, and leave nothing behind. Keys are in another order: that in which they came into the first of the slices that have them.
func TestSlicesEqualWholeWindows(t *testing.T) {
	for _, w := range []Windows{
		Sliding(20*ms, 10*ms), Sliding(50*ms, 10*ms), Sliding(25*ms, 10*ms), Sliding(7*ms, 3*ms), Sliding(9*ms, time.Millisecond),
	} {
		for _, processing := range []bool{false, true} {
			if processing {
				w = w.ProcessingTime()
			}
			t.Run(fmt.Sprint(w.size, " every ", w.slide, " processing ", processing), rapid.MakeCheck(func(r *rapid.T) {
				whole, sliced := newHarness(r, sumJob(w, false), "win", 1), newHarness(r, sumJob(w, true), "win", 1)
				now := int64(rapid.IntRange(-40, 40).Draw(r, "start"))
				for range rapid.IntRange(1, 60).Draw(r, "steps") {
					record := rapid.IntRange(0, 3).Draw(r, "step") > 0
					v, at := byte(rapid.IntRange(0, 8).Draw(r, "value")), now+int64(rapid.IntRange(-40, 15).Draw(r, "time"))
					now += int64(rapid.SampledFrom([]int{0, 1, 3, 10, 60}).Draw(r, "advance"))
					for _, h := range []*harness{whole, sliced} {
						h.rt.now = now
						switch {
						case record && processing:
							h.record(0, []byte{v})
						case record:
							h.recordAt(0, []byte{v}, at)
						case !processing:
							h.watermark(now)
						}
						for next, ok := h.chain.NextTimer(); ok && next <= now; next, ok = h.chain.NextTimer() {
							h.timers(now)
						}
					}
					if rapid.IntRange(0, 9).Draw(r, "restart") == 0 {
						sliced.restart()
					}
					require.ElementsMatch(r, whole.take(), sliced.take())
				}
				whole.end()
				sliced.end()
				require.ElementsMatch(r, whole.take(), sliced.take())
				sliced.freeze()
				require.Empty(r, sliced.state["win/panes"])
				require.Empty(r, sliced.state["win/event timers"])
				require.Empty(r, sliced.state["win/processing timers"])
			}))
		}
	}
}

// At the ends of time there are fewer slices, and no endless loop.
func TestSlicesAtTheEndsOfTime(t *testing.T) {
	for _, at := range []int64{math.MinInt64, math.MinInt64 + 1, math.MinInt64 + 35, math.MaxInt64 - 40, math.MaxInt64 - 1} {
		whole, sliced := newHarness(t, sumJob(Sliding(25*ms, 10*ms), false), "win", 1), newHarness(t, sumJob(Sliding(25*ms, 10*ms), true), "win", 1)
		for _, h := range []*harness{whole, sliced} {
			h.recordAt(0, []byte{1}, at)
			h.end()
		}
		require.Equal(t, whole.take(), sliced.take(), "at %d", at)
	}
}
