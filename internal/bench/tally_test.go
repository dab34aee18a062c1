package bench

import (
	"context"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

func cursor(next determinant.Seq, epoch determinant.Epoch) determinant.Cursor {
	return determinant.Cursor{Next: next, Epoch: epoch}
}

func TestTallySink(t *testing.T) {
	ctx := context.Background()
	sink := newTallySink(xxhash.Sum64)
	store, err := sink.Open(ctx, 0, 2)
	require.NoError(t, err)
	stored, err := store.Fence(ctx, operator.Fence{Incarnation: 1})
	require.NoError(t, err)
	require.Equal(t, operator.Stored{}, stored)
	write := func(from, to determinant.Cursor, delta string, rows ...string) error {
		w := operator.StoreWrite{Start: from, End: to, Delta: []byte(delta)}
		for _, r := range rows {
			w.Records = append(w.Records, []byte(r))
		}
		return store.Write(ctx, 1, w)
	}
	require.NoError(t, write(cursor(1, 1), cursor(3, 1), "one", "a", "bc"))
	require.NoError(t, write(cursor(3, 1), cursor(4, 2), "two", "a"))
	require.NoError(t, write(cursor(4, 2), cursor(5, 3), ""))
	require.ErrorIs(t, write(cursor(4, 2), cursor(5, 3), "", "a"), operator.ErrContradiction)

	again, err := sink.Open(ctx, 0, 2) // as another worker does
	require.NoError(t, err)
	stored, err = again.Fence(ctx, operator.Fence{Incarnation: 2})
	require.NoError(t, err)
	require.Equal(t, cursor(5, 3), stored.Cursor)
	require.Equal(t, [][]byte{[]byte("one"), []byte("two")}, stored.Deltas)
	require.ErrorIs(t, write(cursor(5, 3), cursor(6, 3), "", "late"), operator.ErrFenced)

	require.NoError(t, again.Truncate(ctx, 2, nil))
	stored, err = again.Fence(ctx, operator.Fence{Incarnation: 2})
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("two")}, stored.Deltas)
	_, err = again.Fence(ctx, operator.Fence{Incarnation: 3, Cut: &operator.Cut{}})
	require.ErrorIs(t, err, errCutBack)
	restart := cursor(2, 1)
	stored, err = again.Fence(ctx, operator.Fence{Incarnation: 3, Restart: &restart})
	require.NoError(t, err)
	require.Equal(t, restart, stored.Cursor)

	other, err := sink.Open(ctx, 1, 2)
	require.NoError(t, err)
	require.NoError(t, other.Write(ctx, 1, operator.StoreWrite{Start: cursor(1, 1), End: cursor(2, 1), Records: [][]byte{[]byte("d")}}))
	tally, last, deltas := sink.seen()
	require.Equal(t, Tally{Rows: 4, Bytes: 5, Sum: 2*xxhash.Sum64String("a") + xxhash.Sum64String("bc") + xxhash.Sum64String("d")}, tally)
	require.False(t, last.IsZero())
	require.EqualValues(t, 6, deltas)
}
