package operator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func asyncJob(t *testing.T, o AsyncOptions) *harness {
	t.Helper()
	j := NewJob("async")
	s := AsyncMap(numbers(j, "in"), "call", func(ctx context.Context, v int) (string, error) {
		switch v {
		case 99:
			panic("boom")
		case 98:
			return "", errors.New("refused")
		case 97:
			<-ctx.Done()
			return "", ctx.Err()
		}
		return fmt.Sprint("r", v), nil
	}, o)
	To(s, "out", nowhere{})
	return newHarness(t, j, "call", 1)
}

func TestAsyncMapOrdered(t *testing.T) {
	h := asyncJob(t, AsyncOptions{Capacity: 3, Ordered: true})
	require.Equal(t, "call -> out", h.plan.Vertices[1].Name)
	for v := range 3 {
		require.Equal(t, 3-v, h.chain.Room())
		h.recordAt(0, []byte{byte(v)}, int64(v))
	}
	require.Equal(t, 0, h.chain.Room())
	h.complete(1) // r1 waits for r0
	h.complete(1) // r2 too
	require.Empty(t, h.take())
	require.Equal(t, 0, h.chain.Room(), "what is held takes room")
	h.restart()
	require.Len(t, h.rt.issued, 1)
	h.complete(0)
	require.Equal(t, []string{"sink0@0 r0", "sink0@1 r1", "sink0@2 r2"}, h.take())
	require.Equal(t, 3, h.chain.Room())
}

func TestAsyncMapUnorderedKeepsWatermarks(t *testing.T) {
	j := NewJob("async")
	s := AsyncMap(numbers(j, "in"), "call", func(_ context.Context, v int) (int, error) { return v, nil },
		AsyncOptions{Capacity: 10})
	To(Rebalanced(s), "out", nowhere{}, Parallelism(2))
	h := newHarness(t, j, "call", 2)
	h.watermark(1)
	h.record(0, []byte{1})
	h.record(0, []byte{2})
	h.watermark(10)
	require.NoError(t, h.chain.Idle(true))
	require.NoError(t, h.chain.Idle(false))
	h.watermark(20)
	h.record(0, []byte{3})
	h.restart()
	h.complete(2) // 3 is behind the watermark
	h.complete(1)
	require.Equal(t, []string{"out0. wm 1", `out0.0 "\x02"`}, h.take())
	h.end()
	require.False(t, h.chain.Drained())
	h.restart()
	require.False(t, h.chain.Drained())
	h.complete(0)
	require.Equal(t, []string{`out0.1 "\x01"`, "out0. idle false", "out0. wm 20", `out0.0 "\x03"`, "out0. wm max"}, h.take())
	require.True(t, h.chain.Drained())
}

func TestAsyncMapFailures(t *testing.T) {
	for v, want := range map[byte]string{99: "panic: boom, at operator.", 98: "refused", 97: "deadline exceeded"} {
		h := asyncJob(t, AsyncOptions{Timeout: time.Millisecond})
		h.record(0, []byte{v})
		_, cause := h.rt.issued[0].do(context.Background())
		require.ErrorContains(t, cause, want)
		var failure *UserError
		require.ErrorAs(t, h.chain.AsyncDone(0, []byte(cause.Error()), true), &failure)
		require.Equal(t, "call", failure.Operator)
		require.ErrorContains(t, failure, want)
	}
	h := asyncJob(t, AsyncOptions{})
	require.ErrorContains(t, h.chain.AsyncDone(0, nil, false), "call 0 of 0")
}

// A result is emitted as soon as it is there and everything before the last watermark ahead of it has been emitted.
func TestAsyncMapUnorderedIsPrompt(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		h := asyncJob(t, AsyncOptions{})
		sections := make([][]int, 1+rng.IntN(5)) // the records between two watermarks
		var waiting []int                        // as the engine counts outstanding calls
		for i := range sections {
			for range rng.IntN(4) {
				sections[i] = append(sections[i], len(waiting))
				h.record(0, []byte{byte(len(waiting))})
				waiting = append(waiting, len(waiting))
			}
			h.watermark(int64(i))
		}
		answered := map[int]bool{}
		at := 0 // the first section that is not complete
		for len(waiting) > 0 {
			for at < len(sections) && len(sections[at]) == 0 {
				at++
			}
			k := rng.IntN(len(waiting))
			v := waiting[k]
			waiting = slices.Delete(waiting, k, k+1)
			answered[v] = true
			var want []string
			for ; at < len(sections); at++ {
				left := sections[at][:0]
				for _, r := range sections[at] {
					if answered[r] {
						want = append(want, fmt.Sprintf("sink0 r%d", r))
					} else {
						left = append(left, r)
					}
				}
				if sections[at] = left; len(left) > 0 {
					break
				}
			}
			h.complete(k)
			require.Equal(t, want, slices.Concat(h.take()), "sections %v, at %d, completed %d", sections, at, v)
		}
	}
}
