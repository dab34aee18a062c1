package transport

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// piece of an item's stream under way.
type flying struct {
	pos   uint64
	bytes []byte
}

// Whatever is lost and sent again, each item comes once, whole and in order, and no more is under way than the window allows.
func TestBoxesUnderLoss(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const window = 50
		var out outbox
		var in inbox
		var sent, came [][]byte
		var way []flying
		took := uint64(0) // bytes of whole items that were handed on
		receive := func(item []byte, size uint64) { came, took = append(came, item), took+size }
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				item := bytes.Repeat([]byte{byte(len(sent))}, rapid.SampledFrom([]int{0, 1, 5, 127, 128, 300}).Draw(t, "length"))
				sent = append(sent, item)
				out.push(item)
			},
			"send": func(t *rapid.T) {
				pos, parts := out.next(nil, rapid.IntRange(1, 100).Draw(t, "limit"), window)
				if p := bytes.Join(parts, nil); len(p) > 0 {
					way = append(way, flying{pos, p})
				}
				require.LessOrEqual(t, out.sent, out.taken+window)
			},
			"receive": func(t *rapid.T) {
				if len(way) > 0 {
					require.NoError(t, in.piece(way[0].pos, way[0].bytes, receive))
					way = way[1:]
				}
			},
			"acknowledge": func(t *rapid.T) {
				require.NoError(t, out.acknowledge(in.received))
			},
			"acknowledge late": func(t *rapid.T) {
				require.NoError(t, out.acknowledge(min(took, in.received)))
			},
			"break": func(t *rapid.T) {
				at := in.received
				// What had come, but was not looked at when the position was told, still counts.
				for range min(len(way), rapid.IntRange(0, 2).Draw(t, "late")) {
					require.NoError(t, in.piece(way[0].pos, way[0].bytes, receive))
					way = way[1:]
				}
				way = nil
				require.NoError(t, out.resume(at))
			},
			"": func(t *rapid.T) {
				require.LessOrEqual(t, len(came), len(sent))
				for i, item := range came {
					require.True(t, bytes.Equal(sent[i], item), "item %d", i)
				}
				require.LessOrEqual(t, out.begin(), out.taken)
				require.LessOrEqual(t, out.taken, out.sent)
				require.LessOrEqual(t, out.sent, out.end)
				require.Equal(t, out.end-out.taken, out.backlog())
			},
		})
		way = nil
		require.NoError(t, out.resume(in.received))
		require.NoError(t, out.acknowledge(in.received))
		for len(came) < len(sent) {
			pos, parts := out.next(nil, 100, window)
			require.NotEmpty(t, parts, "it is stuck")
			require.NoError(t, in.piece(pos, bytes.Join(parts, nil), receive))
			require.NoError(t, out.acknowledge(in.received))
		}
		for i, item := range came {
			require.True(t, bytes.Equal(sent[i], item), "item %d", i)
		}
		require.Empty(t, out.items, "what was taken is let go")
	})
}

func TestBoxesRefuseNonsense(t *testing.T) {
	var out outbox
	out.push([]byte("item"))
	require.ErrorIs(t, out.acknowledge(1), ErrCorrupt, "more than was sent")
	require.ErrorIs(t, out.resume(6), ErrCorrupt, "more than there is")
	_, _ = out.next(nil, 100, 100)
	require.NoError(t, out.acknowledge(5))
	require.ErrorIs(t, out.resume(4), ErrCorrupt, "what was let go")

	whole := func([]byte, uint64) { t.Error("an item came") }
	var in inbox
	require.ErrorIs(t, in.piece(1, []byte{1}, whole), ErrCorrupt, "a gap")
	for _, length := range [][]byte{binary.AppendUvarint(nil, MaxItem+1), binary.AppendUvarint(nil, math.MaxUint64), bytes.Repeat([]byte{0x80}, 11), {0x80, 0}} {
		in = inbox{}
		require.ErrorIs(t, in.piece(0, length, whole), ErrCorrupt, "%x", length)
	}
}

func TestMemoryOfItemFollowsBytes(t *testing.T) {
	var in inbox
	require.NoError(t, in.piece(0, append(binary.AppendUvarint(nil, MaxItem), "abc"...), nil))
	require.LessOrEqual(t, cap(in.item), itemAtOnce)
	in = inbox{}
	var item []byte
	n := itemAtOnce + itemAtOnce/2
	require.NoError(t, in.piece(0, append(binary.AppendUvarint(nil, uint64(n)), make([]byte, n)...), func(i []byte, _ uint64) { item = i }))
	require.Len(t, item, n)
	require.LessOrEqual(t, cap(item), n+n/10, "not twice as much as it needs")
}

func TestInvitationComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := invitation{kind: rapid.IntRange(0, lines-1).Draw(t, "kind"), attempt: rapid.Uint64().Draw(t, "attempt")}
		s := &i.standing
		s.session, s.known = rapid.Uint64Min(1).Draw(t, "session"), rapid.Uint64().Draw(t, "known")
		for c := range classes {
			s.received[c], s.begin[c] = rapid.Uint64().Draw(t, "received"), rapid.Uint64().Draw(t, "begin")
		}
		got, err := decodeInvitation(i.encode())
		require.NoError(t, err)
		require.Equal(t, i, got)
	})
}

func FuzzInvitation(f *testing.F) {
	f.Add((&invitation{standing: standing{session: 1}}).encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		i, err := decodeInvitation(in)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.Equal(t, in, i.encode())
	})
}

// FuzzItems hands a stream of items that is anybody's to an inbox.
func FuzzItems(f *testing.F) {
	f.Add([]byte("\x03abc\x00\x02xy"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var box inbox
		var again []byte
		err := box.piece(0, in, func(item []byte, _ uint64) { again = appendBytes(again, item) })
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		}
		require.True(t, bytes.HasPrefix(in, again))
	})
}
