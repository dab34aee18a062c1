package operator

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// talking is a Reader that says why it waits.
type talking struct {
	sliceReader[int]
	why atomic.Pointer[string]
}

func (r *talking) Waiting() string { return *r.why.Load() }
func (r *talking) say(why string)  { r.why.Store(&why) }

type talkers map[string]Reader[int]

func (s talkers) Splits(context.Context) ([]string, error) { return []string{"a", "b", "c"}, nil }
func (s talkers) Open(_ context.Context, split string, _ uint64) (Reader[int], error) {
	return s[split], nil
}

// A source says what its open readers say, to whoever asks, while the task's goroutine opens and removes splits.
func TestASourceSaysWhyItsReadersWait(t *testing.T) {
	a, c := &talking{sliceReader: sliceReader[int]{hold: 1}}, &talking{sliceReader: sliceReader[int]{hold: 1}}
	a.say("no server")
	c.say("no disk")
	j := NewJob("source")
	To(From(j, "in", talkers{"a": a, "b": &sliceReader[int]{hold: 1}, "c": c}), "out", nowhere{}, WithCodec(JSON[int]()))
	h := newHarness(t, j, "in", 1)
	src := h.chain.Source()
	for _, split := range []string{"a", "b", "c"} {
		require.NoError(t, src.Add(split))
	}
	require.Empty(t, src.Waiting(), "no split is open yet")
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				src.Waiting()
			}
		}
	})
	_, n, _, done, err := src.Poll(1)
	require.NoError(t, err)
	require.Zero(t, n)
	require.False(t, done)
	require.Equal(t, "2 splits, of which split a: no server", src.Waiting())
	a.say("")
	require.Equal(t, "split c: no disk", src.Waiting())
	require.NoError(t, src.Remove(2))
	require.Empty(t, src.Waiting())
	a.say("no server")
	require.Equal(t, "split a: no server", src.Waiting())
	require.NoError(t, src.Close())
	require.Empty(t, src.Waiting())
	close(stop)
	asking.Wait()
}

// Of the calls that wait, the one counts that has waited for longest.
func TestWaits(t *testing.T) {
	var w Waits
	first, second := w.Call(), w.Call()
	require.Empty(t, w.Waiting())
	second.Say("")
	second.Say("b")
	first.Say("a")
	require.Equal(t, "b", w.Waiting())
	second.Say("c")
	require.Equal(t, "c", w.Waiting(), "it has waited since it said b")
	second.Say("")
	require.Equal(t, "a", w.Waiting())
	first.Say("")
	require.Empty(t, w.Waiting())
	second.Say("d")
	require.Equal(t, "d", w.Waiting())
}
