package verify

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestImportsNothingOfTheEngine keeps the checker independent of what it checks.
func TestImportsNothingOfTheEngine(t *testing.T) {
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range file.Imports {
			require.NotContains(t, i.Path.Value, "understudy-stream", e.Name())
		}
	}
}

func TestReportJSON(t *testing.T) {
	r := &Report{Check: "ids", Counts: []Count{{"input-records", 3}}, Violations: []Violation{
		{Kind: "missing", Count: 2, First: []Offender{{What: "7", Where: "in:1"}}}, {Kind: "torn", Allowed: true, Count: 1},
	}}
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.JSONEq(t, `{"check":"ids","clean":false,"counts":{"input-records":3},"violations":{
		"missing":{"count":2,"first":[{"what":"7","where":"in:1"}]},
		"torn":{"count":1,"allowed":true,"first":[]}}}`, string(text))
	require.Equal(t, int64(2), r.Count("missing"))
	require.Zero(t, r.Count("what?"))
	r.Violations[0].Count = 0
	require.True(t, r.Clean())
	var b strings.Builder
	require.NoError(t, r.WriteText(&b))
	require.Contains(t, b.String(), "torn           1 (allowed)")
	require.Contains(t, b.String(), "verify ids: clean")
}

// TestTallyKeepsTheFirst gives offenders in reverse and expects the first of the files.
func TestTallyKeepsTheFirst(t *testing.T) {
	tally := tallies(3, "x")[0]
	for i := 9; i >= 0; i-- {
		tally.add(2, place{file: i % 2, line: int64(i)}, func() Offender { return Offender{What: fmt.Sprint(i)} })
	}
	tally.add(1, place{file: 0, line: 2}, func() Offender { return Offender{What: "later, same place"} })
	v := tally.violation()
	require.Equal(t, int64(21), v.Count)
	require.Equal(t, []Offender{{What: "0"}, {What: "2"}, {What: "later, same place"}}, v.First)
}

func TestIdentitiesDoNotRunTogether(t *testing.T) {
	id := identity{fields: []string{"a", "b"}}
	key := func(a, b string) string {
		k, err := id.key(&row{fields: []value{{kindText, []byte(a)}, {kindText, []byte(b)}}})
		require.NoError(t, err)
		return string(k)
	}
	require.NotEqual(t, key("a:b", "c"), key("a", "b:c"))
	require.NotEqual(t, key("", "ab"), key("a", "b"))
	require.Equal(t, "a:b", id.show([]byte(key("a", "b"))))
	require.NotEqual(t, key(long("x"), "1"), key(long("x"), "2"))
	require.LessOrEqual(t, len(key(long("x"), "1")), maxKey+32)
	require.NotPanics(t, func() { id.show([]byte(key(long("x"), "1"))) })
}

func TestNames(t *testing.T) {
	for _, f := range []Format{Auto, JSONL, CSV, Lines} {
		got, err := ParseFormat(f.String())
		require.NoError(t, err)
		require.Equal(t, f, got)
	}
	_, err := ParseFormat("xml")
	require.ErrorContains(t, err, "unknown format")
	require.Equal(t, "Format(9)", Format(9).String())
	torn, err := ParseTorn("ignore")
	require.NoError(t, err)
	require.Equal(t, TornIgnored, torn)
	_, err = ParseTorn("?")
	require.ErrorContains(t, err, "unknown treatment")
}
