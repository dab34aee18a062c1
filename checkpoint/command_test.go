package checkpoint

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

var commands = []Command{
	Start{Epoch: 3, Mode: determinant.AtLeastOnce, Depth: 2},
	Abandon{Epoch: 9},
	Switch{Mode: determinant.GlobalRollback, Depth: 7},
	Complete{Epoch: 4, Tasks: []TaskState{
		{Task: 0, Incarnation: 2, Log: 77, Holders: []determinant.WorkerID{1, 5}},
		{Task: 1, Incarnation: 1, Ended: true, External: &determinant.Cursor{Next: 8, Epoch: 5, Bytes: 3, CRC: 1}},
		{Task: 2, Incarnation: 1, External: &determinant.Cursor{Epoch: 5}, Prepared: []Transaction{{Epoch: 3, Handle: "a"}, {Epoch: 4}}},
	}},
}

func TestCommandRoundTrip(t *testing.T) {
	for _, c := range commands {
		b, err := EncodeCommand(c)
		require.NoError(t, err)
		got, err := DecodeCommand(b)
		require.NoError(t, err)
		require.Equal(t, c, got)
		_, err = DecodeCommand(append(b, 0))
		require.ErrorIs(t, err, ErrCorrupt)
		_, err = DecodeCommand(b[:len(b)-1])
		require.ErrorIs(t, err, ErrCorrupt)
	}
	_, err := DecodeCommand(nil)
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = DecodeCommand([]byte{9})
	require.ErrorIs(t, err, ErrCorrupt)
}

// FuzzCommand: no bytes make the decoder panic, and what it accepts it can write again.
func FuzzCommand(f *testing.F) {
	for _, c := range commands {
		b, err := EncodeCommand(c)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := DecodeCommand(src)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		b, err := EncodeCommand(c)
		require.NoError(t, err)
		again, err := DecodeCommand(b)
		require.NoError(t, err)
		require.Equal(t, c, again)
	})
}
