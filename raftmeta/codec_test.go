package raftmeta

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func FuzzEntry(f *testing.F) {
	f.Add(appendEntry(nil, &raft.Log{Type: raft.LogCommand, Term: 7, Data: []byte("data"), Extensions: []byte("ext")}))
	f.Add(appendEntry(nil, &raft.Log{Type: raft.LogConfiguration, Term: 1 << 60}))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeEntry(5, b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		again, err := decodeEntry(5, appendEntry(nil, &l))
		require.NoError(t, err)
		require.Equal(t, entryText(&l), entryText(&again))
	})
}

func FuzzBatch(f *testing.F) {
	f.Add(appendBatch(nil, nil))
	f.Add(appendBatch(nil, [][]byte{[]byte("one"), nil, bytes.Repeat([]byte("x"), 300)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		commands, err := decodeBatch(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		again, err := decodeBatch(appendBatch(nil, commands))
		require.NoError(t, err)
		require.Equal(t, commands, again)
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(someone.encode())
	f.Add(identity{cluster: "a \"b\"\n", id: "ü", peers: []string{"ü"}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := decodeIdentity(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.Equal(t, b, i.encode())
	})
}

func FuzzSnapshotRecord(f *testing.F) {
	meta := raft.SnapshotMeta{Index: 9, Term: 3, Size: 1 << 20, ConfigurationIndex: 1,
		Configuration: raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}}
	f.Add(snapshot{SnapshotMeta: meta, checksum: 17}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSnapshot(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.Positive(t, s.Index)
		require.LessOrEqual(t, s.Size, int64(MaxSnapshot))
	})
}

func FuzzPreface(f *testing.F) {
	f.Add(appendPreface(sha256.Sum256(nil), "a", "b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		digest, from, to, err := readPreface(r)
		require.LessOrEqual(t, len(b)-r.Len(), maxPreface)
		if err != nil {
			require.ErrorIs(t, err, errPreface)
			return
		}
		require.Equal(t, b[:len(b)-r.Len()], appendPreface(digest, from, to))
	})
}

func TestValuesUnderAnotherKey(t *testing.T) {
	sealed := seal([]byte("key"), []byte("value"))
	value, err := unseal([]byte("key"), sealed)
	require.NoError(t, err)
	require.Equal(t, "value", string(value))
	_, err = unseal([]byte("kez"), sealed)
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = unseal([]byte("key"), sealed[:3])
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestVoteRecord(t *testing.T) {
	v := vote{term: 300, candidate: []byte("b")}
	again, err := decodeVote(v.encode())
	require.NoError(t, err)
	require.Equal(t, v, again)
	for _, b := range [][]byte{nil, {0x80}, {5}} {
		_, err := decodeVote(b)
		require.ErrorIs(t, err, ErrCorrupt)
	}
}
