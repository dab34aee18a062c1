package operator

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFromMapTo(t *testing.T) {
	j := NewJob("double")
	s := From(j, "numbers", slice[int]{{1, 2, 3}, {10}})
	d := Map(s, "double", func(_ Context, v int) (int, error) { return 2 * v, nil })
	odd := FlatMap(d, "twice", func(_ Context, v int, emit func(string)) error {
		emit(fmt.Sprint(v))
		emit(fmt.Sprint(v, "!"))
		return nil
	})
	To(Filter(odd, "short", func(_ Context, v string) (bool, error) { return !strings.Contains(v, "6"), nil }), "out", nowhere{})
	h := newHarness(t, j, "double", 1)
	require.Len(t, h.plan.Vertices, 1)
	require.Equal(t, "numbers -> double -> twice -> short -> out", h.plan.Vertices[0].Name)
	h.runSource(2)
	require.Equal(t, []string{"sink0 2", "sink0 2!", "sink0 4", "sink0 4!", "sink0 20", "sink0 20!"}, h.take())
	require.True(t, h.chain.Drained())
}

func TestReduceAcrossAnEdge(t *testing.T) {
	j := NewJob("sum")
	s := From(j, "numbers", slice[int]{{1, 2, 3, 4}})
	sum := Reduce(KeyBy(s, func(v int) string { return []string{"even", "odd"}[v%2] }), "sum",
		func(acc, v int) (int, error) { return acc + v, nil })
	To(sum, "out", nowhere{}, WithCodec(JSON[int]()))
	up := newHarness(t, j, "numbers", 1)
	require.Len(t, up.plan.Vertices, 2)
	require.Equal(t, []Edge{{From: 0, To: 1, Partition: Hash}}, up.plan.Edges)
	up.runSource(10)
	require.Equal(t, []string{`out0.0 "\x01"`, `out0.0 "\x02"`, `out0.0 "\x03"`, `out0.0 "\x04"`, "out0. wm max"}, up.take())
	down := newHarness(t, j, "sum", 1)
	for _, v := range []byte{1, 2, 3, 4} {
		down.record(0, []byte{v})
		down.restart()
	}
	require.Equal(t, []string{"sink0 1", "sink0 2", "sink0 4", "sink0 6"}, down.take())
}
