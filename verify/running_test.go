package verify

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// series makes an output of "key value" pairs.
func series(pairs ...string) string {
	var b strings.Builder
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, " ")
		fmt.Fprintf(&b, `{"word":%q,"count":%s}`+"\n", key, value)
	}
	return b.String()
}

func TestRunning(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  map[string]string
		change func(o *RunningOptions, dir string)
		want   counts
		kind   string
		first  []string
	}{
		{
			name:  "clean, keys mixed",
			files: map[string]string{"out/a.jsonl": series("x 1", "y 1", "x 2", "x 3", "y 2"), "out/b.jsonl": series("z 1")},
			want:  counts{},
		},
		{
			name:  "planted: missing, in the middle and at the start",
			files: map[string]string{"out/a.jsonl": series("x 1", "x 2", "x 5", "x 6", "y 3")},
			want:  counts{"missing": 4}, kind: "missing", first: []string{"out/a.jsonl:3: x 3 to 4", "out/a.jsonl:5: y 1 to 2"},
		},
		{
			name:  "planted: duplicate, at once and later",
			files: map[string]string{"out/a.jsonl": series("x 1", "x 1", "x 2", "x 3", "x 1")},
			want:  counts{"duplicate": 2}, kind: "duplicate",
			first: []string{"out/a.jsonl:2: x 1 (seen before)", "out/a.jsonl:5: x 1 (seen before)"},
		},
		{
			name:  "planted: duplicate behind a gap",
			files: map[string]string{"out/a.jsonl": series("x 1", "x 4", "x 4")},
			want:  counts{"missing": 2, "duplicate": 1}, kind: "duplicate", first: []string{"out/a.jsonl:3: x 4 (seen before)"},
		},
		{
			name:  "planted: out of order, nothing missing",
			files: map[string]string{"out/a.jsonl": series("x 1", "x 2", "x 4", "x 3", "x 5")},
			want:  counts{"out-of-order": 1}, kind: "out-of-order", first: []string{"out/a.jsonl:4: x 3 (stands behind a later value)"},
		},
		{
			name:  "planted: off the scale",
			files: map[string]string{"out/a.jsonl": series("x 1", "x 0", "x 2", "x -7")},
			want:  counts{"off-scale": 2}, kind: "off-scale",
			first: []string{"out/a.jsonl:2: x 0 (not 1 plus a multiple of 1)", "out/a.jsonl:4: x -7 (not 1 plus a multiple of 1)"},
		},
		{
			name:  "planted: a key in two files",
			files: map[string]string{"out/a.jsonl": series("x 1", "x 2"), "out/b.jsonl": series("x 3", "x 4")},
			want:  counts{"spread": 1}, kind: "spread", first: []string{"out/b.jsonl:1: x (also at out/a.jsonl:2)"},
		},
		{
			name:   "a key in two files, allowed",
			files:  map[string]string{"out/a.jsonl": series("x 1", "x 4"), "out/b.jsonl": series("x 2", "x 3", "x 5")},
			change: func(o *RunningOptions, _ string) { o.Spread = true },
			want:   counts{},
		},
		{
			name:   "planted: out of order within one of two files",
			files:  map[string]string{"out/a.jsonl": series("x 1", "x 4"), "out/b.jsonl": series("x 3", "x 2", "x 5")},
			change: func(o *RunningOptions, _ string) { o.Spread = true },
			want:   counts{"out-of-order": 1},
		},
		{
			name:  "planted: torn",
			files: map[string]string{"out/a.jsonl": series("x 1") + `{"word":"x","count":2}`},
			want:  counts{"torn": 1},
		},
		{
			name:   "start and step, downwards",
			files:  map[string]string{"out/a.jsonl": series("x 10", "x 7", "x 4", "x 1", "x -2", "y 10", "y 4", "y 8")},
			change: func(o *RunningOptions, _ string) { o.Start, o.Step = 10, -3 },
			want:   counts{"missing": 1, "off-scale": 1}, kind: "missing", first: []string{"out/a.jsonl:7: y 7"},
		},
		{
			name:   "words, clean",
			files:  map[string]string{"in/a.txt": "The cat's\ttail; the END", "in/b.txt": "the\n", "out/a.jsonl": series("the 1", "cat 1", "s 1", "the 2", "the 3", "tail 1", "end 1")},
			change: func(o *RunningOptions, dir string) { o.Words.Paths = []string{filepath.Join(dir, "in")} },
			want:   counts{},
		},
		{
			name:   "planted against words: missing at the end, missing key, surplus, surplus key",
			files:  map[string]string{"in/a.txt": "a a a b c c d", "out/a.jsonl": series("a 1", "c 1", "c 2", "c 3", "d 1", "e 1")},
			change: func(o *RunningOptions, dir string) { o.Words.Paths = []string{filepath.Join(dir, "in")} },
			want:   counts{"missing": 3, "surplus": 2}, kind: "missing",
			first: []string{"b 1 (the key is not in the output)", "out/a.jsonl:1: a 2 to 3"},
		},
		{
			name:   "planted against words: surplus behind a gap, surplus duplicate, missing at the end of a gapped key",
			files:  map[string]string{"in/a.txt": "a a b b b b b", "out/a.jsonl": series("a 1", "a 4", "a 4", "b 1", "b 3")},
			change: func(o *RunningOptions, dir string) { o.Words.Paths = []string{filepath.Join(dir, "in")} },
			want:   counts{"missing": 4, "surplus": 2}, kind: "surplus",
			first: []string{"out/a.jsonl:2: a 4 (beyond the expected 2 times)", "out/a.jsonl:3: a 4 (seen before, and beyond the expected 2 times)"},
		},
		{
			name:   "expected counts as uniq -c writes them",
			files:  map[string]string{"want.txt": "      2 a\n      1 b c\n", "out/a.jsonl": series("a 1", "a 2", "a 3")},
			change: func(o *RunningOptions, dir string) { o.Expect.Paths = []string{filepath.Join(dir, "want.txt")} },
			want:   counts{"missing": 1, "surplus": 1}, kind: "missing", first: []string{"b c 1 (the key is not in the output)"},
		},
		{
			name:   "expected counts as JSON",
			files:  map[string]string{"want.jsonl": series("a 2"), "out/a.jsonl": series("a 1", "a 2")},
			change: func(o *RunningOptions, dir string) { o.Expect.Paths = []string{filepath.Join(dir, "want.jsonl")} },
			want:   counts{},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, c.files)
			opt := RunningOptions{Start: 1, Output: Selection{Paths: []string{filepath.Join(dir, "out")}, Fields: []string{"word", "count"}}}
			if c.change != nil {
				c.change(&opt, dir)
			}
			r, err := CheckRunning(background, opt)
			require.NoError(t, err)
			require.Equal(t, c.want, found(r))
			if c.kind != "" {
				require.Equal(t, c.first, firsts(r, c.kind, dir))
			}
		})
	}
}

func TestRunningUnusable(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		opt   func(*RunningOptions, string)
		want  string
	}{
		"value that is no number": {map[string]string{"o.jsonl": series(`x "many"`)}, nil, `o.jsonl:1: field "count" is "\"many\"", not a whole number`},
		"fraction":                {map[string]string{"o.jsonl": series(`x 1.5`)}, nil, "not a whole number"},
		"no key":                  {map[string]string{"o.jsonl": rows(`{"count":1}`)}, nil, `field "word" is missing`},
		"not counts": {
			map[string]string{"o.jsonl": series(`x 1`), "want.txt": "x 1\n"},
			func(o *RunningOptions, dir string) { o.Expect.Paths = []string{filepath.Join(dir, "want.txt")} },
			`want.txt:1: "x 1" is not a count and a key`,
		},
		"negative count": {
			map[string]string{"o.jsonl": series(`x 1`), "want.jsonl": series("x -1")},
			func(o *RunningOptions, dir string) { o.Expect.Paths = []string{filepath.Join(dir, "want.jsonl")} },
			"-1 values are expected",
		},
		"no text": {
			map[string]string{"o.jsonl": series(`x 1`)},
			func(o *RunningOptions, dir string) { o.Words.Paths = []string{filepath.Join(dir, "*.txt")} },
			"matches no file",
		},
	} {
		dir := folder(t, c.files)
		opt := RunningOptions{Start: 1, Output: Selection{Paths: []string{filepath.Join(dir, "o.jsonl")}, Fields: []string{"word", "count"}}}
		if c.opt != nil {
			c.opt(&opt, dir)
		}
		_, err := CheckRunning(background, opt)
		require.ErrorIs(t, err, ErrUnusable, name)
		require.ErrorContains(t, err, c.want, name)
	}
	_, err := CheckRunning(background, RunningOptions{Output: Selection{Fields: []string{"x"}}})
	require.ErrorContains(t, err, "a key and a value")
}

// TestRunningCountsPlantedFaults compares the counts of random series with those of a direct computation.
func TestRunningCountsPlantedFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		values := rapid.SliceOfN(rapid.IntRange(1, 12), 0, 20).Draw(rt, "values of x")
		expected := rapid.IntRange(-1, 10).Draw(rt, "expected of x")
		cut := rapid.IntRange(0, len(values)).Draw(rt, "in the first file")
		lines := func(values []int) string {
			var b strings.Builder
			for i, v := range values {
				fmt.Fprintf(&b, "{\"word\":\"x\",\"count\":%d}\n{\"word\":\"w%d\",\"count\":1}\n", v, i%3)
			}
			return b.String()
		}
		dir := folder(t, map[string]string{"a.jsonl": lines(values[:cut]), "b.jsonl": lines(values[cut:])})
		opt := RunningOptions{Options: Options{Memory: MinMemory}, Start: 1, Spread: true,
			Output: Selection{Paths: []string{dir}, Fields: []string{"word", "count"}}}
		want := countSeries(values, cut, expected)
		if expected >= 0 {
			dir := folder(t, map[string]string{"want.txt": fmt.Sprintf("%d x\n", expected)})
			opt.Expect.Paths = []string{filepath.Join(dir, "want.txt")}
		}
		r, err := CheckRunning(background, opt)
		require.NoError(rt, err)
		got := found(r)
		for _, kind := range []string{"missing", "out-of-order"} {
			require.Equal(rt, want[kind], got[kind], kind)
		}
		// The other words are only there once per file in order; count just those of x.
		filler := fillerFaults(cut, len(values), expected)
		require.Equal(rt, want["duplicate"]+filler["duplicate"], got["duplicate"], "duplicate")
		require.Equal(rt, want["surplus"]+filler["surplus"], got["surplus"], "surplus")
	})
}

// countSeries counts the faults of a series that stands in two files.
func countSeries(values []int, cut, expected int) counts {
	want, seen := counts{}, map[int]bool{}
	limit := expected
	if expected < 0 {
		limit = 1 << 30
	}
	highest := 0
	for i, v := range values {
		if i == cut {
			highest = 0
		}
		switch {
		case v > limit:
			want["surplus"]++
		case seen[v]:
			want["duplicate"]++
		case v < highest:
			want["out-of-order"]++
		}
		seen[v] = true
		highest = max(highest, v)
	}
	last := expected
	if expected < 0 {
		last = slices.Max(append(slices.Collect(maps.Keys(seen)), 0))
	}
	for v := 1; v <= last; v++ {
		if !seen[v] {
			want["missing"]++
		}
	}
	return want
}

// fillerFaults counts the faults of the words w0 to w2, whose value is always 1.
func fillerFaults(cut, n, expected int) counts {
	times := [3]int64{}
	for i := range n {
		if i >= cut {
			i -= cut
		}
		times[i%3]++
	}
	want := counts{}
	for _, n := range times {
		switch {
		case expected >= 0:
			want["surplus"] += n
		case n > 1:
			want["duplicate"] += n - 1
		}
	}
	return want
}

// TestRunningSpills checks more than fits in memory: one key that is clean, one that jumps at once, and many small ones.
func TestRunningSpills(t *testing.T) {
	var b, text strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&b, "{\"word\":\"a\",\"count\":%d}\n{\"word\":\"b\",\"count\":%d}\n{\"word\":\"k%d\",\"count\":1}\n", i+1, i+2, i)
		fmt.Fprintf(&text, "A b, k%d\n", i)
	}
	dir := folder(t, map[string]string{"o.jsonl": b.String(), "t.txt.gz": text.String()})
	r, err := CheckRunning(background, RunningOptions{
		Options: Options{Memory: MinMemory}, Start: 1,
		Output: Selection{Paths: []string{filepath.Join(dir, "o.jsonl")}, Fields: []string{"word", "count"}},
		Words:  Selection{Paths: []string{filepath.Join(dir, "t.txt.gz")}},
	})
	require.NoError(t, err)
	require.Equal(t, counts{"missing": 1, "surplus": 1}, found(r))
	require.Equal(t, []string{"o.jsonl:2: b 1"}, firsts(r, "missing", dir))
	require.Equal(t, []string{"o.jsonl:119999: b 40001 (beyond the expected 40000 times)"}, firsts(r, "surplus", dir))
}

func TestRanks(t *testing.T) {
	for _, c := range []struct {
		v, start, step int64
		rank           uint64
		ok             bool
	}{
		{1, 1, 1, 0, true}, {5, 1, 2, 2, true}, {4, 1, 2, 1, false}, {0, 1, 1, 0, false}, {-5, 1, -2, 3, true}, {3, 1, -2, 0, false},
		{1<<63 - 1, -1 << 63, 1, 1<<64 - 1, true}, {-1 << 63, 1<<63 - 1, -1, 1<<64 - 1, true},
	} {
		rank, ok := rankOf(c.v, c.start, c.step)
		require.Equal(t, c.ok, ok, c)
		if ok {
			require.Equal(t, c.rank, rank, c)
		}
	}
}
