package verify

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestIDs(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  map[string]string
		in     string // fields of the input
		out    string // fields of the output
		change func(*IDsOptions)
		want   counts
		kind   string // of which first are the offenders
		first  []string
	}{
		{
			name:  "clean, across files, formats and packing",
			files: map[string]string{"in/a.jsonl": rows(`{"id":1}`, `{"id":"2"}`), "in/b.csv": rows("x,id", "y,3"), "out/a.jsonl.gz": rows(`{"id":3}`, `{"id":1.0}`), "out/b.jsonl": rows(`{"id":2}`)},
			want:  counts{},
		},
		{
			name:  "planted: missing",
			files: map[string]string{"in/a.jsonl": rows(`{"id":1}`, `{"id":2}`, `{"id":3}`), "out/a.jsonl": rows(`{"id":2}`)},
			want:  counts{"missing": 2}, kind: "missing", first: []string{"in/a.jsonl:1: 1", "in/a.jsonl:3: 3"},
		},
		{
			name:  "planted: duplicate",
			files: map[string]string{"in/a.jsonl": rows(`{"id":1}`, `{"id":2}`), "out/a.jsonl": rows(`{"id":2}`, `{"id":1}`, `{"id":2}`), "out/b.jsonl": rows(`{"id":2}`)},
			want:  counts{"duplicate": 2}, kind: "duplicate", first: []string{"out/a.jsonl:3: 2 (3 times, first at out/a.jsonl:1)"},
		},
		{
			name:  "planted: unexpected",
			files: map[string]string{"in/a.jsonl": rows(`{"id":1}`), "out/a.jsonl": rows(`{"id":"x"}`, `{"id":1}`, `{"id":"x"}`)},
			want:  counts{"unexpected": 2}, kind: "unexpected", first: []string{"out/a.jsonl:1: x (2 times)"},
		},
		{
			name:  "planted: torn, which is not a record",
			files: map[string]string{"in/a.jsonl": `{"id":1}`, "out/a.jsonl": `{"id":1}`},
			want:  counts{"torn": 1, "missing": 1}, kind: "torn", first: []string{`out/a.jsonl:1: {"id":1} (no newline behind the last line)`},
		},
		{
			name:   "torn, accepted",
			files:  map[string]string{"in/a.jsonl": `{"id":1}`, "out/a.jsonl": `{"id":1}`},
			change: func(o *IDsOptions) { o.Output.Torn = TornAccepted },
			want:   counts{},
		},
		{
			name:   "torn, ignored",
			files:  map[string]string{"in/a.jsonl": `{"id":1}`, "out/a.jsonl": rows(`{"id":1}`) + `{"id":`},
			change: func(o *IDsOptions) { o.Output.Torn = TornIgnored },
			want:   counts{},
		},
		{
			name:  "empty lines and several fields, one of them nested",
			files: map[string]string{"in/a.jsonl": "\n" + rows(`{"u":"a","n":1}`, ``, `{"u":"a","n":12}`), "out/a.jsonl": rows(`{"k":{"u":"a"},"n":1}`, `{"k":{"u":"a1"},"n":2}`)},
			in:    "u,n", out: "k.u,n",
			want: counts{"missing": 1, "unexpected": 1}, kind: "unexpected", first: []string{"out/a.jsonl:2: a1:2 (once)"},
		},
		{
			name:  "several fields against one",
			files: map[string]string{"in/a.jsonl": rows(`{"u":"a","n":1}`), "out/a.jsonl": rows(`{"id":"a:1"}`)},
			in:    "u,n", want: counts{},
		},
		{
			name:   "multiset",
			files:  map[string]string{"in/a.txt": rows("x", "x", "y", "y", "y", "z"), "out/a.txt": rows("x", "x", "x", "y", "z")},
			in:     "@line",
			out:    "@line",
			change: func(o *IDsOptions) { o.Multiset = true },
			want:   counts{"duplicate": 1, "missing": 2}, kind: "duplicate", first: []string{"out/a.txt:3: x (3 times, first at out/a.txt:1)"},
		},
		{
			name:  "an id too long to be sorted as it is",
			files: map[string]string{"in/a.txt": rows(long("x")+"1", long("x")+"2"), "out/a.txt": rows(long("x")+"2", long("x")+"3")},
			in:    "@line", out: "@line",
			want: counts{"missing": 1, "unexpected": 1},
		},
		{
			name:  "nothing at all",
			files: map[string]string{"in/a.jsonl": "", "out/a.jsonl": ""},
			want:  counts{},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, c.files)
			opt := IDsOptions{Input: Selection{Paths: []string{filepath.Join(dir, "in")}}, Output: Selection{Paths: []string{filepath.Join(dir, "out")}}}
			if c.in != "" {
				opt.Input.Fields = strings.Split(c.in, ",")
			}
			if c.out != "" {
				opt.Output.Fields = strings.Split(c.out, ",")
			}
			if c.change != nil {
				c.change(&opt)
			}
			r, err := CheckIDs(background, opt)
			require.NoError(t, err)
			require.Equal(t, c.want, found(r))
			require.Equal(t, len(c.want) == 0, r.Clean())
			if c.kind != "" {
				require.Equal(t, c.first, firsts(r, c.kind, dir))
			}
		})
	}
}

func long(s string) string { return strings.Repeat(s, 10*maxKey) }

// TestIDsOfPlainLines checks what the job passthrough writes: each line with the file and offset it was read from.
func TestIDsOfPlainLines(t *testing.T) {
	text := "one\n\ntwo words\nlast"
	dir := folder(t, map[string]string{"in/a.txt": text, "in/b.txt.gz": text})
	var out []string
	for _, name := range []string{"in/b.txt.gz", "in/a.txt"} {
		offset := 0
		for line := range strings.SplitSeq(text, "\n") {
			out = append(out, fmt.Sprintf(`{"file":%q,"offset":%d,"line":%q}`, filepath.Join(dir, name), offset, line))
			offset += len(line) + 1
		}
	}
	check := func(lines []string) *Report {
		outDir := folder(t, map[string]string{"o.jsonl": rows(lines...)})
		r, err := CheckIDs(background, IDsOptions{
			Input:  Selection{Paths: []string{filepath.Join(dir, "in")}},
			Output: Selection{Paths: []string{outDir}, Fields: []string{"file", "offset"}},
		})
		require.NoError(t, err)
		return r
	}
	require.True(t, check(out).Clean())
	require.Equal(t, counts{"missing": 1}, found(check(out[1:])))
	require.Equal(t, counts{"duplicate": 1}, found(check(append(out, out[3]))))
}

func TestIDsUnusable(t *testing.T) {
	ok := rows(`{"id":1}`)
	for name, c := range map[string]struct {
		in, out string
		want    string
	}{
		"output that is cut in the middle": {ok, rows(`{"id":`), "out.jsonl:1: malformed JSON"},
		"input that is malformed":          {rows(`{"id":1}`, `x`), ok, "in.jsonl:2: malformed JSON"},
		"not an object":                    {ok, rows(`[1]`), "out.jsonl:1: not a JSON object"},
		"no such field":                    {ok, rows(`{"id":1}`, `{"ID":1}`), `out.jsonl:2: field "id" is missing`},
		"an object for an id":              {ok, rows(`{"id":{}}`), `out.jsonl:1: field "id" is an object`},
		"an input id twice":                {rows(`{"id":1}`, `{"id":2}`, `{"id":1}`), ok, `input id "1" stands 2 times, first at`},
	} {
		dir := folder(t, map[string]string{"in.jsonl": c.in, "out.jsonl": c.out})
		_, err := CheckIDs(background, IDsOptions{
			Input:  Selection{Paths: []string{filepath.Join(dir, "in.jsonl")}},
			Output: Selection{Paths: []string{filepath.Join(dir, "out.jsonl")}},
		})
		require.ErrorIs(t, err, ErrUnusable, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestIDsWrongOptions(t *testing.T) {
	dir := folder(t, map[string]string{"a.jsonl": rows(`{"id":1}`), "a.txt": "x\n"})
	one := Selection{Paths: []string{filepath.Join(dir, "a.jsonl")}}
	fields := func(names ...string) Selection { return Selection{Paths: one.Paths, Fields: names} }
	text := Selection{Paths: []string{filepath.Join(dir, "a.txt")}, Fields: []string{"id"}}
	for _, c := range []struct {
		opt  IDsOptions
		want string
	}{
		{IDsOptions{Options: Options{Memory: 1}, Input: one, Output: one}, "below the least"},
		{IDsOptions{Options: Options{Offenders: -1}, Input: one, Output: one}, "negative"},
		{IDsOptions{Input: fields("a", "b", "c"), Output: fields("a", "b")}, "they must be as many"},
		{IDsOptions{Input: fields("@nothing"), Output: one}, "unknown pseudo-field"},
		{IDsOptions{Input: Selection{Paths: []string{dir + "/gone"}}, Output: one}, "matches no file"},
		{IDsOptions{Input: one, Output: Selection{}}, "no file named"},
		{IDsOptions{Input: text, Output: one}, "plain lines, which have no field"},
	} {
		_, err := CheckIDs(background, c.opt)
		require.ErrorContains(t, err, c.want)
	}
	ctx, cancel := context.WithCancel(background)
	cancel()
	big := folder(t, map[string]string{"a.txt": strings.Repeat("x\n", 3*contextEvery)})
	lines := Selection{Paths: []string{filepath.Join(big, "a.txt")}, Fields: []string{"@number"}}
	_, err := CheckIDs(ctx, IDsOptions{Input: lines, Output: lines})
	require.ErrorIs(t, err, context.Canceled)
}

// TestIDsCountsPlantedFaults plants random faults in a random set and compares the counts with those of a map.
func TestIDsCountsPlantedFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		in := rapid.SliceOfDistinct(rapid.IntRange(0, 300), func(i int) int { return i }).Draw(rt, "in")
		lost := rapid.SliceOfN(rapid.IntRange(0, 300), 0, 5).Draw(rt, "lost")
		extra := rapid.SliceOfN(rapid.IntRange(0, 320), 0, 8).Draw(rt, "extra")
		seen, input := map[int]int64{}, map[int]bool{}
		var inLines, outLines []string
		for _, id := range in {
			input[id] = true
			seen[id] = 1
			inLines = append(inLines, `{"id":`+strconv.Itoa(id)+`}`)
		}
		for _, id := range lost {
			if input[id] {
				seen[id] = 0
			}
		}
		for _, id := range extra {
			seen[id]++
		}
		want := counts{}
		for id, n := range seen {
			for range n {
				outLines = append(outLines, `{"id":"`+strconv.Itoa(id)+`"}`)
			}
			switch {
			case input[id] && n == 0:
				want["missing"]++
			case input[id] && n > 1:
				want["duplicate"] += n - 1
			case !input[id]:
				want["unexpected"] += n
			}
		}
		for kind, n := range want {
			if n == 0 {
				delete(want, kind)
			}
		}
		outLines = rapid.Permutation(outLines).Draw(rt, "out")
		dir := folder(t, map[string]string{"in.jsonl": strings.Join(inLines, "\n"), "out.jsonl": strings.Join(append(outLines, ""), "\n")})
		r, err := CheckIDs(background, IDsOptions{
			Options: Options{Memory: MinMemory},
			Input:   Selection{Paths: []string{filepath.Join(dir, "in.jsonl")}},
			Output:  Selection{Paths: []string{filepath.Join(dir, "out.jsonl")}},
		})
		require.NoError(rt, err)
		require.Equal(rt, want, found(r))
	})
}

// TestIDsSpills checks more than fits in memory, with one fault of each kind far apart.
func TestIDsSpills(t *testing.T) {
	const n = 60_000
	var in, out strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "{\"id\":%d}\n", i)
		if i != 777 {
			fmt.Fprintf(&out, "{\"id\":%d}\n", n-1-i)
		}
	}
	out.WriteString("{\"id\":5}\n{\"id\":-1}\n")
	dir := folder(t, map[string]string{"in.jsonl": in.String(), "out.jsonl": out.String()})
	temp := t.TempDir()
	var phases []string
	r, err := CheckIDs(background, IDsOptions{
		Options: Options{Memory: MinMemory, TempDir: temp, Progress: func(p Progress) {
			if p.Records == 0 {
				phases = append(phases, p.Phase)
			}
		}},
		Input:  Selection{Paths: []string{filepath.Join(dir, "in.jsonl")}},
		Output: Selection{Paths: []string{filepath.Join(dir, "out.jsonl")}},
	})
	require.NoError(t, err)
	require.Equal(t, counts{"missing": 1, "duplicate": 1, "unexpected": 1}, found(r))
	require.Equal(t, []string{"in.jsonl:59223: 59222"}, firsts(r, "missing", dir))
	require.Equal(t, []string{"reading input", "reading output", "comparing"}, phases)
	requireEmpty(t, temp)
}
