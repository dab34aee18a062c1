package raftmeta

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

var someone = identity{cluster: "test", id: "a", peers: []string{"a", "b", "c"}}

// image is what a store has, in a form that can be compared and copied.
type image struct {
	term, voteTerm  uint64
	candidate       string
	first           uint64
	entries         []string // term, type and bytes
	covered, covers uint64   // index and term of the snapshot
	state           string
}

func imageOf(t testing.TB, s *store) image {
	t.Helper()
	var im image
	var err error
	im.term, err = s.GetUint64([]byte(libraryTerm))
	require.NoError(t, err)
	im.voteTerm, err = s.GetUint64([]byte(libraryVoteTerm))
	require.NoError(t, err)
	candidate, err := s.Get([]byte(libraryCandidate))
	require.NoError(t, err)
	im.candidate = string(candidate)
	im.first, err = s.FirstIndex()
	require.NoError(t, err)
	last, err := s.LastIndex()
	require.NoError(t, err)
	for i := im.first; im.first > 0 && i <= last; i++ {
		var l raft.Log
		require.NoError(t, s.GetLog(i, &l))
		require.Equal(t, i, l.Index)
		im.entries = append(im.entries, entryText(&l))
	}
	metas, err := s.List()
	require.NoError(t, err)
	for _, meta := range metas {
		_, r, err := s.Open(meta.ID)
		require.NoError(t, err)
		state, err := io.ReadAll(r)
		require.NoError(t, err)
		im.covered, im.covers, im.state = meta.Index, meta.Term, string(state)
	}
	return im
}

func entryText(l *raft.Log) string {
	return fmt.Sprintf("%d %v %q %q", l.Term, l.Type, l.Data, l.Extensions)
}

// command is an entry with random bytes.
func command(rng *rand.Rand, index, term uint64) *raft.Log {
	l := &raft.Log{Index: index, Term: term, Data: make([]byte, rng.IntN(200))}
	for i := range l.Data {
		l.Data[i] = byte(rng.Uint32())
	}
	if rng.IntN(4) == 0 {
		l.Extensions = []byte("extension")
	}
	return l
}

// takeSnapshot stores a snapshot as Raft does.
func takeSnapshot(s *store, index, term uint64, state string) error {
	sink, err := s.Create(raft.SnapshotVersionMax, index, term, raft.Configuration{Servers: []raft.Server{{ID: "a"}}}, 1, nil)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(sink, state); err != nil {
		return err
	}
	return sink.Close()
}

// disk is all files of a directory.
type disk map[string][]byte

func diskOf(t testing.TB, fs vfs.FS, dir string) disk {
	t.Helper()
	d := disk{}
	names, err := fs.List(dir)
	require.NoError(t, err)
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		require.NoError(t, err)
		if info.IsDir() {
			maps.Copy(d, diskOf(t, fs, path))
			continue
		}
		f, err := fs.Open(path)
		require.NoError(t, err)
		d[path], err = io.ReadAll(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	return d
}

func (d disk) write(t testing.TB) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewCrashableMem()
	for path, content := range d {
		require.NoError(t, fs.MkdirAll(fs.PathDir(path), 0o755))
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = f.Write(slices.Clone(content))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	return fs
}

// populated is a directory that a node has left, and what was in it.
func populated(t testing.TB) (disk, image) {
	t.Helper()
	fs := vfs.NewMem()
	s, err := openStore(fs, "/d", someone, newFault())
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range uint64(50) {
		require.NoError(t, s.StoreLogs([]*raft.Log{command(rng, 2+i, 1)}))
	}
	require.NoError(t, takeSnapshot(s, 20, 1, strings.Repeat("state", 1000)))
	require.NoError(t, s.DeleteRange(1, 10))
	require.NoError(t, s.db.Flush()) // some of it in tables
	require.NoError(t, s.SetUint64([]byte(libraryVoteTerm), 1))
	require.NoError(t, s.Set([]byte(libraryCandidate), []byte("b")))
	for i := range uint64(50) {
		require.NoError(t, s.StoreLogs([]*raft.Log{command(rng, 52+i, 1)}))
	}
	im := imageOf(t, s)
	require.NoError(t, s.close())
	return diskOf(t, fs, "/d"), im
}

// TestDamage changes a bit, or cuts or removes a file, anywhere: a store tells, or has everything all the same. In particular
// it does not take damage for the torn end of a log.
func TestDamage(t *testing.T) {
	whole, want := populated(t)
	rng := rand.New(rand.NewPCG(3, 4))
	found := map[string]int{}
	check := func(path, how string, d disk) {
		fs := d.write(t)
		s, err := openStore(fs, "/d", someone, newFault())
		if err != nil {
			require.Contains(t, err.Error(), "raftmeta: ")
			found[how]++
			if log := path; strings.HasSuffix(log, ".log") && how != "loss" { // Pebble would have removed it
				require.True(t, bytes.Equal(d[log], diskOf(t, fs, "/d")[log]), "%s of %s: it was changed: %v", how, path, err)
			}
			return
		}
		require.Equal(t, want, imageOf(t, s), "%s of %s", how, path)
		require.NoError(t, s.close())
	}
	for _, path := range slices.Sorted(maps.Keys(whole)) {
		gone := maps.Clone(whole)
		delete(gone, path)
		if !strings.HasSuffix(path, identityFile) { // without it, the directory has never taken part in anything
			check(path, "loss", gone)
		}
		for range min(len(whole[path]), flips) {
			at := rng.IntN(len(whole[path]))
			flipped, cut := maps.Clone(whole), maps.Clone(whole)
			flipped[path] = slices.Clone(whole[path])
			flipped[path][at] ^= 1 << rng.IntN(8)
			cut[path] = whole[path][:at]
			check(path, "flip", flipped)
			check(path, "cut", cut)
		}
	}
	t.Log(found)
	require.Greater(t, found["flip"], 4*flips)
	require.Greater(t, found["cut"], 4*flips)
	require.GreaterOrEqual(t, found["loss"], 3)
}
