package kafka

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/operator"
)

func TestWriteAndReadBack(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	st := open(t, Sink(topic, s.sink()))
	require.Equal(t, operator.Stored{}, fence(t, st, 1))
	var str stream
	for n := 0; n < 30; n += 5 {
		require.NoError(t, st.Write(ctx, 1, str.write(n, n+5)))
		require.Equal(t, str.text(0, n+5), s.values(t, topic, 0), "visible at once")
	}
	stored := fence(t, st, 1)
	require.Equal(t, cursorAt(30), stored.Cursor)
	require.Len(t, stored.Deltas, 6)
	require.NoError(t, st.Write(ctx, 1, str.write(30, 31)), "a read beside the writer does not stop it")

	next := open(t, Sink(topic, s.sink()))
	stored = fence(t, next, 2)
	require.Equal(t, cursorAt(31), stored.Cursor)
	covers(t, stored.Deltas, 0, 31)
	require.ErrorIs(t, st.Write(ctx, 1, str.write(31, 33)), operator.ErrFenced)
	require.NoError(t, next.Write(ctx, 2, str.write(31, 40)))
	require.Equal(t, str.text(0, 40), s.values(t, topic, 0))
}
