package verify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExpand(t *testing.T) {
	dir := folder(t, map[string]string{
		"b.jsonl": "", "a.csv.gz": "", "c.txt": "", "note.md": "", ".hidden.jsonl": "",
		"sub/d.ndjson": "", ".git/e.jsonl": "", "sub/deep/f.ndjson": "", "odd[1].txt": "",
	})
	for _, c := range []struct {
		patterns string
		want     string
	}{
		{".", "a.csv.gz b.jsonl c.txt odd[1].txt sub/d.ndjson sub/deep/f.ndjson"},
		{"*", "a.csv.gz b.jsonl c.txt note.md odd[1].txt"},
		{"**/*.ndjson", "sub/d.ndjson sub/deep/f.ndjson"},
		{"**/*.jsonl", "b.jsonl"},
		{"s*/**", "sub/d.ndjson sub/deep/f.ndjson"},
		{"**/**/deep/*", "sub/deep/f.ndjson"},
		{"*/deep/f.ndjson", "sub/deep/f.ndjson"},
		{"*.jsonl/x", ""},
		{"*.jsonl/*", ""},
		{"s*", ""},
		{"*.jsonl", "b.jsonl"},
		{".*.jsonl", ".hidden.jsonl"},
		{"*/e.jsonl", ""},
		{".git/*.jsonl", ".git/e.jsonl"},
		{"b.jsonl *.jsonl b.jsonl", "b.jsonl"},
		{"c.txt b.jsonl", "b.jsonl c.txt"},
		{"odd[1].txt", "odd[1].txt"},
		{"note.md", "note.md"},
		{"gone.txt", ""},
		{"[", ""},
	} {
		var patterns []string
		for p := range strings.FieldsSeq(c.patterns) {
			patterns = append(patterns, filepath.Join(dir, p))
		}
		files, err := expand(patterns)
		if c.want == "" {
			require.ErrorIs(t, err, ErrUnusable, c.patterns)
			continue
		}
		require.NoError(t, err, c.patterns)
		for i := range files {
			files[i], err = filepath.Rel(dir, files[i])
			require.NoError(t, err)
		}
		require.Equal(t, strings.Fields(c.want), files, c.patterns)
	}
	_, err := expand(nil)
	require.ErrorIs(t, err, ErrUnusable)
	t.Chdir(dir)
	for pattern, want := range map[string]string{"**/d*": "sub/d.ndjson", "./s*/d.ndjson": "sub/d.ndjson", "*.jsonl": "b.jsonl", "./sub": "sub/d.ndjson sub/deep/f.ndjson"} {
		files, err := expand([]string{pattern})
		require.NoError(t, err, pattern)
		require.Equal(t, strings.Fields(want), files, pattern)
	}
}

// TestDamagedFiles has a file that cannot be read to its end for each reason.
func TestDamagedFiles(t *testing.T) {
	dir := folder(t, map[string]string{"ok.txt.gz": strings.Repeat("some line\n", 1000), "in.txt": "x\n"})
	packed, err := os.ReadFile(filepath.Join(dir, "ok.txt.gz"))
	require.NoError(t, err)
	flipped := append([]byte{}, packed...)
	flipped[len(flipped)-6] ^= 1 // the checksum
	for name, content := range map[string][]byte{
		"cut.txt.gz": packed[:len(packed)-9], "flipped.txt.gz": flipped, "empty.txt.gz": nil, "no.txt.gz": []byte("plain text\n"),
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		_, err := CheckEqual(background, EqualOptions{
			A: Selection{Paths: []string{path}},
			B: Selection{Paths: []string{filepath.Join(dir, "in.txt")}},
		})
		require.ErrorIs(t, err, ErrUnusable, name)
		require.ErrorContains(t, err, name)
	}
}

func TestLinesKnowTheirPlace(t *testing.T) {
	long := strings.Repeat("x", 3*lineBuffer)
	content := "one\n\ntwo\r\n" + long + "\nlast"
	dir := folder(t, map[string]string{"f.txt": content, "g.txt.gz": content})
	for _, name := range []string{"f.txt", "g.txt.gz"} {
		s, err := newScanner(Selection{Paths: []string{filepath.Join(dir, name)}, Fields: []string{"@line", "@offset", "@number"}},
			sideInput, newMeter(background, nil), nil)
		require.NoError(t, err)
		var got []string
		_, err = s.each("", func(r *row) error {
			offset, err := r.fields[1].integer()
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(content[offset:], string(r.text)))
			got = append(got, r.fields[0].text()+"@"+r.fields[1].text()+"#"+r.fields[2].text())
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []string{"one@0#1", "@4#2", "two\r@5#3", long + "@10#4", "last@786443#5"}, got, name)
	}
}
