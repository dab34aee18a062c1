package operator

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestContextServices(t *testing.T) {
	j := NewJob("services")
	asked := 0
	s := Map(Rebalanced(numbers(j, "in")), "ask", func(ctx Context, v int) (string, error) {
		answer, err := ctx.Call([]byte(fmt.Sprint(v)), func(_ context.Context, request []byte) ([]byte, error) {
			asked++
			return append([]byte("re "), request...), nil
		})
		at, timed := ctx.EventTime()
		return fmt.Sprint(ctx.Now().Format(time.RFC3339), " ", string(answer), " ", at.UnixMilli(), timed, ctx.Rand() != nil,
			ctx.Task()), err
	})
	ForEach(s, "log", func(_ Context, v string) error {
		if asked > 1 {
			return errors.New("full")
		}
		return nil
	})
	To(s, "out", nowhere{})
	require.Equal(t, "services", j.Name())
	h := newHarness(t, j, "ask", 1)
	h.rt.now = 86400000
	h.recordAt(0, []byte{7}, 3)
	require.Equal(t, []string{
		`out0.0@3 "1970-01-02T00:00:00Z re 7 3 true true {ask 0 1}"`, `out1.0@3 "1970-01-02T00:00:00Z re 7 3 true true {ask 0 1}"`,
	}, h.take())
	require.Equal(t, 1, asked)
	log := newHarness(t, j, "log", 1)
	log.record(0, []byte("x"))
	asked = 2
	require.ErrorContains(t, log.chain.Record(0, []byte("x"), 0, false), `operator: "log": full`)
}

func TestCheckFunctionReplaysCalls(t *testing.T) {
	text, err := MsgPack[string]()
	require.NoError(t, err)
	answers := 0
	request := "same"
	f := func(ctx Context, v int, emit func(string)) error {
		b, err := ctx.Call([]byte(request), func(context.Context, []byte) ([]byte, error) {
			answers++
			return []byte(fmt.Sprint(answers)), nil
		})
		at, _ := ctx.EventTime()
		_, known := ctx.Watermark()
		emit(fmt.Sprint(string(b), at.UnixMilli(), known, ctx.Task().Vertex))
		return err
	}
	require.NoError(t, CheckFunction(f, text, 1, 2))
	require.Equal(t, 2, answers)
	rounds := 0
	require.ErrorContains(t, CheckFunction(func(ctx Context, v int, emit func(string)) error {
		rounds++
		request = fmt.Sprint(rounds)
		return f(ctx, v, emit)
	}, text, 1), `call 0 asks "2" when run again`)
	fails := errors.New("odd")
	require.NoError(t, CheckFunction(func(_ Context, v int, _ func(string)) error { return fails }, text, 1))
	rounds = 0
	require.ErrorContains(t, CheckFunction(func(_ Context, v int, emit func(string)) error {
		if rounds++; rounds == 1 {
			emit("only now")
		}
		return nil
	}, text, 1), "is not there when run again")
}

func TestScalarCodecs(t *testing.T) {
	scalar(t, "", "text", "\xff\x00")
	scalar(t, []byte{}, []byte{0, 1})
	scalar(t, true, false)
	scalar(t, 0, -1, 1<<40)
	scalar[int8](t, -128, 127)
	scalar[int16](t, -32768)
	scalar[int32](t, 1<<31-1)
	scalar[int64](t, -1<<63)
	scalar[uint](t, 1<<63)
	scalar[uint8](t, 255)
	scalar[uint16](t, 65535)
	scalar[uint32](t, 1<<32-1)
	scalar[uint64](t, 1<<64-1)
	scalar[float32](t, 0.5, -1e30)
	scalar(t, 0.5, -1e300)
}

func scalar[T any](t *testing.T, values ...T) {
	t.Helper()
	c, err := MsgPack[T]()
	require.NoError(t, err)
	require.NoError(t, CheckDeterministic(c, values...))
	for _, v := range values {
		b, err := c.Append(nil, v)
		require.NoError(t, err)
		back, err := c.Decode(b)
		require.NoError(t, err)
		require.Equal(t, v, back)
	}
}

func TestPartitionNames(t *testing.T) {
	require.Equal(t, "[forward hash rebalance broadcast partition(9)]",
		fmt.Sprint([]Partition{Forward, Hash, Rebalance, Broadcast, 9}))
}

func TestUnusedStreamsAndZeroStreams(t *testing.T) {
	require.PanicsWithValue(t, `operator: Map "m": the input is a zero Stream`, func() { Map(Stream[int]{}, "m", keep) })
	require.Panics(t, func() { Union[int]("u") })
	j := NewJob("keyed")
	KeyBy(numbers(j, "in"), byMod(2), WithCodec(JSON[string]()))
	_, err := j.Plan(1)
	require.ErrorContains(t, err, `operator: KeyBy after "in": WithCodec[string] fits nothing here`)
	// The late stream of a window may be left alone; then what follows the other is chained.
	j = NewJob("late")
	fired, _ := Window(KeyBy(numbers(j, "in"), byMod(2)), "win", Tumbling(time.Second).EventTime(), counting)
	To(fired, "out", nowhere{})
	h := newHarness(t, j, "win", 1)
	require.Equal(t, "win -> out", h.plan.Vertices[1].Name)
	h.watermark(5000)
	h.recordAt(0, []byte{1}, 10) // too late: discarded
	h.end()
	require.Empty(t, h.take())
}
