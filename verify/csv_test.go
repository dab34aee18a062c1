package verify

import (
	"encoding/csv"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// readCSV reads all columns of a CSV file that are called a and b.
func readCSV(t testing.TB, content string) (got [][2]string, places []int64, err error) {
	dir := folder(t, map[string]string{"f.csv": content})
	s, err := newScanner(Selection{Paths: []string{filepath.Join(dir, "f.csv")}, Fields: []string{"b", "a"}},
		sideInput, newMeter(background, nil), nil)
	require.NoError(t, err)
	_, err = s.each("", func(r *row) error {
		b, _ := r.fields[0].appendText(nil)
		a, _ := r.fields[1].appendText(nil)
		got = append(got, [2]string{string(a), string(b)})
		places = append(places, r.at.line)
		return nil
	})
	return got, places, err
}

func TestCSV(t *testing.T) {
	got, places, err := readCSV(t, "\ufeffa,x,b\r\n1,,2\n\n\"q\"\"q\",\"line\nbreak\",\"c,d\"\n\"multi\r\nline\",y,3\n4,5,6")
	require.NoError(t, err)
	require.Equal(t, [][2]string{{"1", "2"}, {`q"q`, "c,d"}, {"multi\nline", "3"}, {"4", "6"}}, got)
	require.Equal(t, []int64{2, 4, 6, 8}, places)
}

func TestCSVRefuses(t *testing.T) {
	for content, want := range map[string]string{
		"a,b\n1\n":        "f.csv:2: 1 columns where the header has 2",
		"a,c\n1,2\n":      `no column "b"`,
		"a,b\n1,x\"y\n\"": "quote inside",
		"a,b\n1,\"x\"y\n": "closing quote",
		"a,b\n1,\"x\n2\n": "without end",
	} {
		_, _, err := readCSV(t, content)
		require.ErrorIs(t, err, ErrUnusable, content)
		require.ErrorContains(t, err, want)
	}
}

// FuzzCSV holds the splitter against encoding/csv, record by record.
func FuzzCSV(f *testing.F) {
	for _, seed := range []string{"a,b,c", `"a","b""c",`, `"x`, `a"b`, `"a"b`, ",,", `"a` + "\n" + `b",c`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" || strings.ContainsAny(text, "\r\n") {
			return // a blank line is no record; lines are joined before they are split
		}
		var c csvRecord
		err := c.split([]byte(text))
		want, wantErr := csv.NewReader(strings.NewReader(text)).Read()
		require.Equal(t, wantErr != nil, err != nil, "%v, %v", err, wantErr)
		if err != nil {
			return
		}
		got := make([]string, len(c.fields))
		for i, f := range c.fields {
			got[i] = string(f)
		}
		require.Equal(t, want, got)
	})
}
