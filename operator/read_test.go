package operator

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// scripted is a Source whose readers the test holds.
type scripted struct{ readers map[string]*sliceReader[int] }

func (s scripted) Splits(context.Context) ([]string, error) { return nil, errors.New("no list") }
func (s scripted) Open(_ context.Context, split string, offset uint64) (Reader[int], error) {
	r := s.readers[split]
	if r == nil {
		return nil, fmt.Errorf("no split %q", split)
	}
	r.at = offset
	return r, nil
}

func scriptedHead(t *testing.T, readers map[string]*sliceReader[int]) (*harness, SourceHead) {
	t.Helper()
	j := NewJob("source")
	To(From(j, "in", scripted{readers}), "out", nowhere{}, WithCodec(JSON[int]()))
	h := newHarness(t, j, "in", 1)
	t.Cleanup(func() { require.NoError(t, h.chain.Source().Close()) })
	return h, h.chain.Source()
}

func TestSourcePollHoldsWhatItFound(t *testing.T) {
	h, src := scriptedHead(t, map[string]*sliceReader[int]{"a": {values: []int{1, 2, 3}}, "b": {values: []int{10}}})
	require.NoError(t, src.Add("a"))
	require.NoError(t, src.Add("b"))
	for range 3 {
		split, n, offset, done, err := src.Poll(2)
		require.NoError(t, err)
		require.Equal(t, []any{uint32(0), 2, uint64(2), false}, []any{split, n, offset, done})
	}
	require.NoError(t, src.Begin(0, 2, 2))
	split, offset := src.Position()
	require.Equal(t, []uint64{0, 0}, []uint64{uint64(split), offset})
	require.NoError(t, emitOne(src))
	_, offset = src.Position()
	require.EqualValues(t, 1, offset)
	require.NoError(t, src.Discard())
	require.ErrorContains(t, emitOne(src), "no step of the source is under way")
	h.sourceStep(5) // in turn: b
	h.sourceStep(5)
	require.Equal(t, []string{"sink0 1", "sink0 10", "sink0 3"}, h.take())
	h.sourceStep(5) // b is done
	require.Equal(t, 1, src.Open())
	require.Equal(t, 2, src.Splits())
	require.ErrorContains(t, src.Begin(1, 1, 1), "split 1 of 2 is not open")
	h.restart()
	require.Equal(t, 1, h.chain.Source().Open())
	h.runSource(5)
	require.Empty(t, h.take())
}

func TestSourceReplayWaitsAndChecks(t *testing.T) {
	r := &sliceReader[int]{values: []int{1, 2, 3, 4}, hold: 2}
	h, src := scriptedHead(t, map[string]*sliceReader[int]{"a": r})
	require.NoError(t, src.Add("a"))
	require.NoError(t, src.Begin(0, 3, 3)) // replayed: nothing was polled
	require.ErrorIs(t, emitOne(src), ErrNotReady)
	require.ErrorIs(t, emitOne(src), ErrNotReady)
	for range 3 {
		require.NoError(t, emitOne(src))
	}
	require.Equal(t, []string{"sink0 1", "sink0 2", "sink0 3"}, h.take())
	require.NoError(t, src.Begin(0, 2, 5))
	require.NoError(t, emitOne(src))
	require.ErrorIs(t, emitOne(src), ErrSourceChanged) // the end comes too early
	h, src = scriptedHead(t, map[string]*sliceReader[int]{"a": {values: []int{1, 2, 3, 4}}})
	require.NoError(t, src.Add("a"))
	require.NoError(t, src.Begin(0, 2, 7))
	require.NoError(t, emitOne(src))
	require.ErrorIs(t, emitOne(src), ErrSourceChanged) // another offset
	require.Equal(t, []string{"sink0 1"}, h.take())
	require.NoError(t, src.Add("missing"))
	require.ErrorContains(t, src.Begin(0, 1, 3), "1 records of the last one to come")
}

func TestSourceErrorsNameTheSplit(t *testing.T) {
	h, src := scriptedHead(t, nil)
	require.NoError(t, src.Add("a"))
	_, _, _, _, err := src.Poll(1)
	require.ErrorContains(t, err, `operator: "in": opening split "a" at offset 0: no split "a"`)
	_, err = h.plan.Vertices[0].Source(context.Background())
	require.ErrorContains(t, err, `operator: source "in": no list`)
	for _, bad := range [][2]string{{"", "\x00\x00"}, {"\x00\x00\x00\x00", ""}, {"\x00\x00\x00\x00", "\x00\xff"}} {
		require.ErrorIs(t, src.(Table).Load([]byte(bad[0]), []byte(bad[1])), ErrEncoding)
	}
}

func TestSourceReadyJoinsItsReaders(t *testing.T) {
	defer goleak.VerifyNone(t)
	a, b := make(chan struct{}, 1), make(chan struct{}, 1)
	readers := map[string]*sliceReader[int]{"a": {hold: 99, notify: a}, "b": {hold: 99, notify: b}, "c": {hold: 99}}
	j := NewJob("source")
	To(From(j, "in", scripted{readers}), "out", nowhere{}, WithCodec(JSON[int]()))
	src := newHarness(t, j, "in", 1).chain.Source()
	require.Nil(t, src.Ready())
	for _, name := range []string{"a", "b", "c"} {
		require.NoError(t, src.Add(name))
	}
	_, n, _, done, err := src.Poll(1)
	require.NoError(t, err)
	require.Zero(t, n)
	require.False(t, done)
	for _, c := range []chan struct{}{a, b, b, a} {
		c <- struct{}{}
		<-src.Ready()
	}
	require.NoError(t, src.Close())
}
