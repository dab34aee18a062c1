package nats

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

var (
	someCursor = determinant.Cursor{Next: 1 << 40, Epoch: 7, Bytes: 300, CRC: 0xdeadbeef}
	someHead   = head{
		Job: "job", Task: 3, Incarnation: 4, Generation: 5, Committed: 6, Cut: true, Cursor: someCursor, Position: 8, Index: 9, Ahead: 10,
		Origin: 11, First: 12, Next: 13,
	}
	someFrame = frame{
		Incarnation: 1, Number: 2, Part: 3, Parts: 4, Start: determinant.Cursor{Next: 5}, End: someCursor, Shown: 6, Count: 7, Position: 8,
		Index: 9, Delta: []byte("delta"),
	}
)

func TestEntriesComeBack(t *testing.T) {
	h, f, err := decodeEntry(appendHead(nil, &someHead))
	require.NoError(t, err)
	require.Nil(t, f)
	require.Equal(t, &someHead, h)
	h, f, err = decodeEntry(appendFrame(nil, &someFrame))
	require.NoError(t, err)
	require.Nil(t, h)
	require.Equal(t, &someFrame, f)
	whole := appendHead(nil, &someHead)
	for n := range whole {
		_, _, err := decodeEntry(whole[:n])
		require.ErrorIs(t, err, errEntry)
	}
	_, _, err = decodeEntry(append(whole, 0))
	require.ErrorIs(t, err, errEntry)
	whole[1]++
	_, _, err = decodeEntry(whole)
	require.ErrorContains(t, err, "version 2")
}

func FuzzEntry(f *testing.F) {
	f.Add(appendHead(nil, &someHead))
	f.Add(appendFrame(nil, &someFrame))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, fr, err := decodeEntry(data)
		switch {
		case err != nil:
			require.Nil(t, h)
			require.Nil(t, fr)
		case h != nil:
			again, _, err := decodeEntry(appendHead(nil, h))
			require.NoError(t, err)
			require.Equal(t, h, again)
		default:
			_, again, err := decodeEntry(appendFrame(nil, fr))
			require.NoError(t, err)
			require.Equal(t, fr, again)
		}
	})
}
