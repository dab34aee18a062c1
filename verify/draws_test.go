package verify

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func draw(id, key string, random int64) string {
	return fmt.Sprintf(`{"kind":"draw","id":%q,"key":%q,"arrived":1700000000123,"random":%d,"answer":"a","order":1}`, id, key, random)
}

func window(key string, start, count, sum int64, ids ...string) string {
	list := ""
	if len(ids) > 0 {
		list = `"` + strings.Join(ids, `","`) + `"`
	}
	return fmt.Sprintf(`{"kind":"window","key":%q,"start":%d,"end":%d,"count":%d,"sum":%d,"ids":[%s]}`,
		key, start, start+1000, count, sum, list)
}

func TestDraws(t *testing.T) {
	const big = 1<<63 - 1
	clean := []string{draw("1", "k", 10), draw("2", "k", -4), window("k", 0, 2, 6, "1", "2"), draw("3", "k", 5), window("k", 1000, 1, 5, "3"),
		draw("4", "l", big), draw("5", "l", big), window("l", 0, 2, -2, "5", "4"), `{"kind":"note"}`}
	// replaced returns clean with a line changed; no replacement takes it out.
	replaced := func(i int, by ...string) []string {
		return append(append(append([]string{}, clean[:i]...), by...), clean[i+1:]...)
	}
	for _, c := range []struct {
		name  string
		out   []string
		torn  string
		want  counts
		kind  string
		first []string
	}{
		{name: "clean", out: clean, want: counts{}},
		{
			name: "planted: missing, and its window shows it", out: replaced(3), want: counts{"missing": 1, "window-unexpected": 1},
			kind: "window-unexpected", first: []string{"out.jsonl:4: 3 (no draw of this id is visible)"},
		},
		{
			name: "planted: missing, with its window", out: append(clean[:3:3], clean[5:]...), want: counts{"missing": 1},
			kind: "missing", first: []string{"in.jsonl:3: 3"},
		},
		{
			name: "planted: duplicate", out: append(clean, draw("3", "k", 6)), want: counts{"duplicate": 1},
			kind: "duplicate", first: []string{"out.jsonl:10: 3 (2 times, first at out.jsonl:4)"},
		},
		{
			name: "planted: unexpected", out: append(clean, draw("9", "k", 6), window("k", 3000, 1, 6, "9")), want: counts{"unexpected": 1},
			kind: "unexpected", first: []string{"out.jsonl:10: 9 (once)"},
		},
		{
			name: "planted: a draw in no window", out: replaced(4), want: counts{"window-missing": 1},
			kind: "window-missing", first: []string{"out.jsonl:4: 3"},
		},
		{
			name: "planted: an id in two windows", out: append(clean, window("k", 2000, 1, 5, "3")), want: counts{"window-duplicate": 1},
			kind: "window-duplicate", first: []string{"out.jsonl:10: 3 (also in the window at out.jsonl:5)"},
		},
		{
			name: "planted: an id twice in a window", out: replaced(4, window("k", 1000, 2, 10, "3", "3")), want: counts{"window-duplicate": 1},
			kind: "window-duplicate", first: []string{"out.jsonl:5: 3 (also in the window at out.jsonl:5)"},
		},
		{
			name: "planted: an id without draw in a window, whose sum is then not judged", out: replaced(4, window("k", 1000, 2, 7, "3", "8")),
			want: counts{"window-unexpected": 1}, kind: "window-unexpected",
			first: []string{"out.jsonl:5: 8 (no draw of this id is visible)"},
		},
		{
			name: "planted: a window of the wrong key", out: replaced(4, window("l", 1000, 1, 5, "3")), want: counts{"window-key": 1},
			kind: "window-key", first: []string{`out.jsonl:5: 3 (window of key "l", but drawn for key "k")`},
		},
		{
			name: "planted: a wrong count", out: replaced(4, window("k", 1000, 2, 5, "3")), want: counts{"window-count": 1},
			kind: "window-count", first: []string{"out.jsonl:5: window of key k (count is 2, but it has 1 ids)"},
		},
		{
			name: "planted: a wrong sum", out: replaced(4, window("k", 1000, 1, 4, "3")), want: counts{"window-sum": 1},
			kind: "window-sum", first: []string{"out.jsonl:5: window of key k (sum is 4, but its draws add up to 5)"},
		},
		{
			name: "planted: a draw that is not the one that was added up", out: replaced(3, draw("3", "k", 8)), want: counts{"window-sum": 1},
			kind: "window-sum", first: []string{"out.jsonl:5: window of key k (sum is 5, but its draws add up to 8)"},
		},
		{
			name: "planted: a window twice", out: append(clean, window("k", 1000, 0, 0)), want: counts{"window-repeated": 1},
			kind: "window-repeated", first: []string{"out.jsonl:10: window of key k (start 1000, as in out.jsonl:5)"},
		},
		{name: "planted: torn", out: clean, torn: draw("1", "k", 10)[:20], want: counts{"torn": 1}},
	} {
		dir := folder(t, map[string]string{
			"in.jsonl":  rows(`{"id":1}`, `{"id":2}`, `{"id":3}`, `{"id":4}`, `{"id":5}`),
			"out.jsonl": rows(c.out...) + c.torn,
		})
		r, err := CheckDraws(background, DrawsOptions{
			Input:  Selection{Paths: []string{filepath.Join(dir, "in.jsonl")}},
			Output: Selection{Paths: []string{filepath.Join(dir, "out.jsonl")}},
		})
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, found(r), c.name)
		if c.kind != "" {
			require.Equal(t, c.first, firsts(r, c.kind, dir), c.name)
		}
	}
}

// TestDrawsOfPlainLines has ids of the form file:offset, and draws and windows in two folders.
func TestDrawsOfPlainLines(t *testing.T) {
	dir := folder(t, map[string]string{"in/a.txt": "x\ny\n"})
	file := filepath.Join(dir, "in", "a.txt")
	out := folder(t, map[string]string{
		"draws/0.jsonl":   rows(draw(file+":0", "x", 1), draw(file+":2", "y", 2)),
		"windows/0.jsonl": rows(window("y", 5, 1, 2, file+":2"), window("x", 5, 1, 1, file+":0")),
	})
	r, err := CheckDraws(background, DrawsOptions{
		Input:  Selection{Paths: []string{file}},
		Output: Selection{Paths: []string{filepath.Join(out, "draws"), filepath.Join(out, "windows")}},
	})
	require.NoError(t, err)
	require.Empty(t, found(r))
	require.Equal(t, []Count{{"input-files", 1}, {"input-records", 2}, {"output-files", 2}, {"draws", 2}, {"windows", 2}, {"other-records", 0}}, r.Counts)
}

func TestDrawsUnusable(t *testing.T) {
	for want, out := range map[string]string{
		`field "kind" is missing`:        `{"id":"1"}`,
		`field "kind" is null`:           `{"kind":null}`,
		`field "id" is missing`:          `{"kind":"draw","key":"k","random":1}`,
		`field "random" is missing`:      `{"kind":"draw","id":"1","key":"k"}`,
		`field "key" is missing`:         `{"kind":"draw","id":"1","random":1}`,
		`field "random" is "0.5", not a`: `{"kind":"draw","id":"1","key":"k","random":0.5}`,
		`field "ids" is not an array`:    `{"kind":"window","key":"k","start":0,"count":0,"sum":0,"ids":{}}`,
		`an id in field "ids" is an obj`: `{"kind":"window","key":"k","start":0,"count":0,"sum":0,"ids":[[]]}`,
		`field "sum" is missing`:         `{"kind":"window","key":"k","start":0,"count":0,"ids":[]}`,
		`field "start" is missing`:       `{"kind":"window","key":"k","sum":0,"count":0,"ids":[]}`,
		`field "count" is missing`:       `{"kind":"window","key":"k","sum":0,"start":0,"ids":[]}`,
	} {
		dir := folder(t, map[string]string{"in.jsonl": rows(`{"id":1}`), "out.jsonl": rows(out)})
		_, err := CheckDraws(background, DrawsOptions{
			Input:  Selection{Paths: []string{filepath.Join(dir, "in.jsonl")}},
			Output: Selection{Paths: []string{filepath.Join(dir, "out.jsonl")}},
		})
		require.ErrorIs(t, err, ErrUnusable)
		require.ErrorContains(t, err, want)
	}
	_, err := CheckDraws(background, DrawsOptions{Output: Selection{Format: CSV}})
	require.ErrorContains(t, err, "must be JSONL")
	dir := folder(t, map[string]string{"in.jsonl": rows(`{"id":1}`, `{"id":1}`), "out.jsonl": ""})
	_, err = CheckDraws(background, DrawsOptions{
		Input:  Selection{Paths: []string{filepath.Join(dir, "in.jsonl")}},
		Output: Selection{Paths: []string{filepath.Join(dir, "out.jsonl")}},
	})
	require.ErrorContains(t, err, `input id "1" stands twice`)
}

// TestDrawsSpill checks more than fits in memory, windows with many ids among it.
func TestDrawsSpill(t *testing.T) {
	const n, perWindow = 20_000, 1000
	var in, out strings.Builder
	var ids []string
	sum := int64(0)
	for i := range int64(n) {
		id := fmt.Sprint("record-", i)
		fmt.Fprintf(&in, "{\"id\":%q}\n", id)
		fmt.Fprintln(&out, draw(id, "k", i*i))
		ids, sum = append(ids, id), sum+i*i
		if len(ids) == perWindow {
			if i == 4*perWindow-1 {
				sum++ // planted
			}
			fmt.Fprintln(&out, window("k", i, perWindow, sum, ids...))
			ids, sum = nil, 0
		}
	}
	dir := folder(t, map[string]string{"in.jsonl": in.String(), "out.jsonl": out.String()})
	r, err := CheckDraws(background, DrawsOptions{
		Options: Options{Memory: MinMemory},
		Input:   Selection{Paths: []string{filepath.Join(dir, "in.jsonl")}},
		Output:  Selection{Paths: []string{filepath.Join(dir, "out.jsonl")}},
	})
	require.NoError(t, err)
	require.Equal(t, counts{"window-sum": 1}, found(r))
}
