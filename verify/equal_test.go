package verify

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		name  string
		a, b  string
		mode  EqualMode
		torn  Torn
		want  counts
		kind  string
		first []string
	}{
		{name: "clean, in another order", a: rows("x", "y", "x"), b: rows("y", "x", "x"), want: counts{}},
		{name: "the last newline does not matter", a: "x\ny", b: rows("y", "x"), want: counts{}},
		{name: "planted: torn", a: "x\ny", b: rows("y", "x"), torn: TornReported, want: counts{"torn": 1, "only-in-b": 1}},
		{
			name: "planted: only in A", a: rows("x", "y", "y", "y"), b: rows("y", "x"), want: counts{"only-in-a": 2},
			kind: "only-in-a", first: []string{"a.jsonl:2: y (3 times in A, once in B)"},
		},
		{
			name: "planted: only in B", a: rows("x"), b: rows("x", "", "z"), want: counts{"only-in-b": 2},
			kind: "only-in-b", first: []string{"b.jsonl:2:  (0 times in A, once in B)", "b.jsonl:3: z (0 times in A, once in B)"},
		},
		{name: "lines are bytes", a: rows(`{"a":1}`), b: rows(`{"a": 1}`), want: counts{"only-in-a": 1, "only-in-b": 1}},
		{name: "JSON is values", mode: EqualJSON, a: rows(`{"a":1,"b":["\u00e9",null,true]}`), b: rows(``, `{"b": ["é",null,true], "a": 1.0}`), want: counts{}},
		{
			name: "planted: JSON differs", mode: EqualJSON, a: rows(`{"a":"1"}`, `[1,2]`), b: rows(`{"a":1}`, `[2,1]`),
			want: counts{"only-in-a": 2, "only-in-b": 2},
		},
		{name: "fields", mode: EqualFields, a: rows(`{"a":1,"t":3}`), b: rows(`{"t":4,"a":"1"}`), want: counts{}},
		{name: "planted: fields differ", mode: EqualFields, a: rows(`{"a":1}`), b: rows(`{"a":2}`), want: counts{"only-in-a": 1, "only-in-b": 1}},
	} {
		dir := folder(t, map[string]string{"a.jsonl": c.a, "b.jsonl": c.b})
		opt := EqualOptions{
			A:    Selection{Paths: []string{filepath.Join(dir, "a.jsonl")}, Torn: c.torn, Fields: []string{"a"}},
			B:    Selection{Paths: []string{filepath.Join(dir, "b.jsonl")}, Torn: c.torn, Fields: []string{"a"}},
			Mode: c.mode,
		}
		r, err := CheckEqual(background, opt)
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, found(r), c.name)
		if c.kind != "" {
			require.Equal(t, c.first, firsts(r, c.kind, dir), c.name)
		}
	}
}

func TestEqualUnusable(t *testing.T) {
	dir := folder(t, map[string]string{"a.jsonl": rows(`{"a":1} 2`), "b.jsonl": rows(`{}`)})
	a, b := Selection{Paths: []string{filepath.Join(dir, "a.jsonl")}}, Selection{Paths: []string{filepath.Join(dir, "b.jsonl")}}
	_, err := CheckEqual(background, EqualOptions{A: a, B: b, Mode: EqualJSON})
	require.ErrorIs(t, err, ErrUnusable)
	require.ErrorContains(t, err, "a.jsonl:1: malformed JSON: something behind the value")
	_, err = CheckEqual(background, EqualOptions{A: a, B: b, Mode: EqualFields})
	require.ErrorContains(t, err, "0 and 0 fields to compare")
}

// TestEqualCountsMultisets compares random multisets with maps of counts.
func TestEqualCountsMultisets(t *testing.T) {
	lines := rapid.SliceOf(rapid.SampledFrom([]string{"", "a", "b", "ab", strings.Repeat("long", maxKey)}))
	rapid.Check(t, func(rt *rapid.T) {
		a, b := lines.Draw(rt, "a"), lines.Draw(rt, "b")
		balance, want := map[string]int64{}, counts{}
		for _, l := range a {
			balance[l]++
		}
		for _, l := range b {
			balance[l]--
		}
		for _, n := range balance {
			if n > 0 {
				want["only-in-a"] += n
			} else if n < 0 {
				want["only-in-b"] -= n
			}
		}
		dir := folder(t, map[string]string{"a.txt": strings.Join(append(a, ""), "\n"), "b.txt": strings.Join(append(b, ""), "\n")})
		r, err := CheckEqual(background, EqualOptions{
			Options: Options{Memory: MinMemory},
			A:       Selection{Paths: []string{filepath.Join(dir, "a.txt")}},
			B:       Selection{Paths: []string{filepath.Join(dir, "b.txt")}},
		})
		require.NoError(rt, err)
		require.Equal(rt, want, found(r))
	})
}

// FuzzCanonical checks that the canonical form of JSON is JSON, and its own canonical form.
func FuzzCanonical(f *testing.F) {
	f.Add([]byte(`{"b":[1.50,"é\n",null],"a":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		once, err := appendCanonical(nil, text)
		if err != nil {
			return
		}
		twice, err := appendCanonical(nil, once)
		require.NoError(t, err)
		require.Equal(t, string(once), string(twice))
	})
}
