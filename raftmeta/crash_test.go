package raftmeta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// change is one call, or what Raft does in two, on a store and on its image.
type change struct {
	name  string
	store func(s *store) error
	image func(im *image)
}

func (im *image) clone() *image {
	c := *im
	c.entries = slices.Clone(im.entries)
	return &c
}

// mended is what is left when the directory is opened again.
func (im *image) mended(follows bool) image {
	c := *im
	if !follows {
		c.entries, c.first = nil, 0
	}
	return c
}

func (im *image) last() uint64 { return im.first + uint64(len(im.entries)) - 1 }

// randomChange draws a change that Raft might make. terms are those of the entries that im has.
func randomChange(rng *rand.Rand, im *image, terms map[uint64]uint64) change {
	first, last := im.first, im.last()
	if len(im.entries) == 0 {
		first, last = im.covered+1, im.covered
	}
	if x, ok := followUp(rng, im, terms); ok {
		return x
	}
	switch n := rng.IntN(10); {
	case n < 4:
		var logs []*raft.Log
		for i := range uint64(1 + rng.IntN(4)) {
			logs = append(logs, command(rng, last+1+i, im.term))
			terms[last+1+i] = im.term
		}
		return change{"append", func(s *store) error { return s.StoreLogs(logs) }, func(im *image) {
			im.first = first
			for _, l := range logs {
				im.entries = append(im.entries, entryText(l))
			}
		}}
	case n == 4:
		term := im.term + 1 + rng.Uint64N(2)
		return change{"term", func(s *store) error {
			return errors.Join(s.SetUint64([]byte(libraryTerm), term), s.fault.check())
		}, func(im *image) { im.term = term }}
	case n == 5:
		who := string(rune('a' + rng.IntN(3)))
		return change{"vote", func(s *store) error {
			return errors.Join(s.SetUint64([]byte(libraryVoteTerm), im.term), s.Set([]byte(libraryCandidate), []byte(who)))
		}, func(im *image) { im.voteTerm, im.candidate = im.term, who }}
	case n == 6 && im.covered > first && len(im.entries) > 0:
		high := first + rng.Uint64N(im.covered-first)
		return change{"compact", func(s *store) error { return s.DeleteRange(first, high) }, func(im *image) {
			im.entries, im.first = im.entries[high-first+1:], high+1
		}}
	case n == 7 && last > im.covered+1:
		low := im.covered + 2 + rng.Uint64N(last-im.covered-1)
		return change{"truncate", func(s *store) error { return s.DeleteRange(low, last) }, func(im *image) {
			im.entries = im.entries[:low-first]
		}}
	case n == 8:
		if index := last; index > im.covered {
			index -= rng.Uint64N(min(index-im.covered, 3))
			return snapshotChange("snapshot", rng, index, terms[index])
		}
	}
	// From a leader: behind the log's end, or before it with another term than the log has.
	index := last + 1 + rng.Uint64N(3)
	if last > im.covered+1 && rng.IntN(2) == 0 {
		index = im.covered + 1 + rng.Uint64N(last-im.covered-1)
	}
	return snapshotChange("install", rng, index, im.term)
}

// snapshotChange is a snapshot of this node's, whose last entry the log has, or one of a leader's, whose last it may not have.
func snapshotChange(name string, rng *rand.Rand, index, term uint64) change {
	state := strings.Repeat(fmt.Sprint(rng.IntN(10)), rng.IntN(3000))
	return change{name, func(s *store) error { return takeSnapshot(s, index, term, state) }, func(im *image) {
		im.covered, im.covers, im.state = index, term, state
	}}
}

// follows tells whether the log has the snapshot's last entry, or needs none.
func (im *image) follows(terms map[uint64]uint64) bool {
	return im.covered == 0 || len(im.entries) == 0 || im.first == im.covered+1 ||
		im.covered <= im.last() && terms[im.covered] == im.covers
}

// followUp is what comes after a leader's snapshot that the log does not follow: its last entry takes the place of the log's, if
// it arrives, or else the next ones do.
func followUp(rng *rand.Rand, im *image, terms map[uint64]uint64) (change, bool) {
	if im.follows(terms) {
		return change{}, false
	}
	if first, last := im.first, im.last(); last >= im.covered {
		low := max(im.covered, first)
		return change{"truncate", func(s *store) error { return s.DeleteRange(low, last) }, func(im *image) {
			if im.entries = im.entries[:low-first]; low == first {
				im.entries, im.first = nil, 0
			}
		}}, true
	}
	index := im.covered + rng.Uint64N(2)
	l := command(rng, index, max(im.covers, im.term))
	if index == im.covered {
		l.Term = im.covers
	}
	terms[index] = l.Term
	return change{"anew", func(s *store) error { return s.StoreLogs([]*raft.Log{l}) }, func(im *image) {
		im.first, im.entries = index, []string{entryText(l)}
	}}, true
}

// crashFS copies its file system as a crash would leave it, before random writes, and notes what had been done by then.
type crashFS struct {
	mem  *vfs.MemFS
	odds int // one write in so many

	mu      sync.Mutex
	rng     *rand.Rand
	done    int // changes
	crashes []crash
}

type crash struct {
	fs   *vfs.MemFS
	done int
}

func (c *crashFS) String() string { return "crash" }

func (c *crashFS) MaybeError(op errorfs.Op) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && c.rng.IntN(c.odds) == 0 {
		// All or nothing of what is not synced: Pebble relies on a directory keeping the order of what is done to it, and
		// the copy does not.
		fs := c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * c.rng.IntN(2), RNG: c.rng})
		c.crashes = append(c.crashes, crash{fs, c.done})
	}
	return nil
}

// TestStoreCrashes crashes a store between any two writes: each change that had returned is there, the one under way is there
// wholly or not at all, and nothing else.
func TestStoreCrashes(t *testing.T) {
	names, crashes := map[string]int{}, 0
	for seed := range uint64(crashSeeds) {
		crashes += crashRun(t, seed, names)
	}
	t.Logf("%d crashes, changes %v", crashes, names)
	require.Greater(t, crashes, 4*crashSeeds)
	require.Len(t, names, 8)
}

func crashRun(t *testing.T, seed uint64, names map[string]int) int {
	mem := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(seed, 1))
	c := &crashFS{mem: mem, odds: 10, rng: rand.New(rand.NewPCG(seed, 2))}
	s, err := openStore(errorfs.Wrap(mem, c), "/d", someone, newFault())
	require.NoError(t, err)
	im := imageOf(t, s)
	images, terms := []*image{im.clone()}, map[uint64]uint64{1: 1}
	follows := []bool{true}
	for range 30 {
		x := randomChange(rng, &im, terms)
		names[x.name]++
		x.image(&im)
		images = append(images, im.clone()) // before it is done: what a crash may leave
		follows = append(follows, im.follows(terms))
		require.NoError(t, x.store(s), "seed %d: %s", seed, x.name)
		c.mu.Lock()
		c.done++
		c.mu.Unlock()
		require.Equal(t, im, imageOf(t, s), "seed %d: %s", seed, x.name)
	}
	require.NoError(t, s.close())
	for i, crash := range c.crashes {
		s, err := openStore(crash.fs, "/d", someone, newFault())
		require.NoError(t, err, "seed %d, crash %d", seed, i)
		have := imageOf(t, s)
		if n := crash.done + 1; n == len(images) || fmt.Sprint(have) != fmt.Sprint(images[n].mended(follows[n])) {
			n--
			require.Equal(t, images[n].mended(follows[n]), have, "seed %d, crash %d after %d changes", seed, i, n)
		}
		require.NoError(t, s.close())
	}
	return len(c.crashes)
}
