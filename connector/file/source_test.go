package file

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/operator"
)

// drain reads a reader to its end.
func drain[T any](t require.TestingT, r operator.Reader[T]) (all []T, offsets []uint64) {
	defer r.Close()
	for {
		v, next, err := r.Next()
		if err == io.EOF {
			return all, offsets
		}
		require.NoError(t, err)
		all, offsets = append(all, v), append(offsets, next)
	}
}

// readAll reads every split of a source and reopens each at every offset it gave.
func readAll(t require.TestingT, s *Source) (lines []Line) {
	ctx := context.Background()
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	for _, split := range splits {
		r, err := s.Open(ctx, split, 0)
		require.NoError(t, err)
		got, offsets := drain(t, r)
		for i, offset := range offsets {
			r, err := s.Open(ctx, split, offset)
			require.NoError(t, err, "%s at %d", split, offset)
			again, at := drain(t, r)
			require.Equal(t, got[i+1:], append([]Line{}, again...), "%s at %d", split, offset)
			require.Equal(t, offsets[i+1:], append([]uint64{}, at...))
		}
		lines = append(lines, got...)
	}
	return lines
}

func write(t require.TestingT, name, text string) string {
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o777))
	require.NoError(t, os.WriteFile(name, []byte(text), 0o666))
	return name
}

func zip(t require.TestingT, text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.String()
}

// want is what the lines of a text are, found in another way.
func want(file, text string) []Line {
	var lines []Line
	at := 0
	for _, l := range strings.SplitAfter(text, "\n") {
		if l != "" {
			lines = append(lines, Line{File: file, Offset: uint64(at), Text: strings.TrimSuffix(l, "\n")})
		}
		at += len(l)
	}
	return lines
}

func TestLinesWhateverTheSplitsAndBuffers(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`([ab\r]{0,9}\n){0,12}[ab]{0,5}`).Draw(t, "text")
		o := SourceOptions{
			SplitBytes:  rapid.Int64Range(1, 40).Draw(t, "split"),
			BufferBytes: rapid.IntRange(1, 40).Draw(t, "buffer"),
		}
		plain := write(t, filepath.Join(dir, "a.txt"), text)
		if text != "" {
			require.Equal(t, want(plain, text), readAll(t, Lines(plain).With(o)))
		}
		packed := write(t, filepath.Join(dir, "a.gz"), zip(t, text))
		require.Equal(t, want(packed, text), readAll(t, Lines(packed).With(o)))
	})
}

func TestSplitsAreSortedAndWithoutRepeats(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"in/b.log", "in/a.log", "in/x/y/c.log", "in/x/d.txt", "in/.h/e.log", "in/.f.log"} {
		write(t, name, "12345\n")
	}
	write(t, "in/empty.log", "")
	files := func(globs ...string) (names []string) {
		splits, err := Lines(globs...).With(SourceOptions{SplitBytes: 4}).Splits(context.Background())
		require.NoError(t, err)
		for _, s := range splits {
			sp, err := parseSplit(s)
			require.NoError(t, err)
			if sp.Start == 0 {
				names = append(names, sp.File)
			}
		}
		return names
	}
	require.Equal(t, []string{"in/a.log", "in/b.log", "in/x/y/c.log"}, files("in/**/*.log"))
	require.Equal(t, []string{"in/a.log", "in/b.log"}, files("in/*.log", "in/[a]*"))
	require.Equal(t, []string{"in/a.log", "in/b.log", "in/x/d.txt", "in/x/y/c.log"}, files("**"))
	require.Equal(t, []string{"in/x/y/c.log"}, files("in/**/**/y/*"))
	require.Equal(t, []string{"in/.f.log"}, files("in/.*.log"))
	require.Equal(t, []string{"in/x/d.txt"}, files("./in/x/d.txt"))
	wd, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(wd, "in/x/d.txt")}, files(filepath.Join(wd, "*/x/*.txt")))
}

func TestSplitsErrors(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "x")
	for _, globs := range [][]string{nil, {filepath.Join(dir, "*.no")}, {filepath.Join(dir, "a"), filepath.Join(dir, "b")}, {""}} {
		_, err := Lines(globs...).Splits(ctx)
		require.ErrorIs(t, err, ErrNoMatch)
	}
	_, err := Lines(dir).Splits(ctx)
	require.ErrorIs(t, err, ErrNoMatch)
	require.ErrorContains(t, err, "is a directory; its files are "+filepath.Join(dir, "*"))
	_, err = Lines(filepath.Join(dir, "[")).Splits(ctx)
	require.ErrorIs(t, err, path.ErrBadPattern)
	_, err = Lines(filepath.Join(dir, "a")).With(SourceOptions{SplitBytes: -1}).Splits(ctx)
	require.ErrorContains(t, err, "negative")
	if os.Getuid() != 0 {
		require.NoError(t, os.Chmod(filepath.Join(dir, "a"), 0))
		_, err = Lines(filepath.Join(dir, "a")).Splits(ctx)
		require.ErrorIs(t, err, os.ErrPermission)
	}
}

func TestChangedFileIsNoticed(t *testing.T) {
	ctx := context.Background()
	name := write(t, filepath.Join(t.TempDir(), "a"), "one\ntwo\n")
	s := Lines(name)
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	r, err := s.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	_, _, err = r.Next()
	require.NoError(t, err)

	write(t, name, "one\ntwo\nthree\n")
	_, _, err = r.Next()
	require.NoError(t, err, "read before the change")
	_, _, err = r.Next()
	require.ErrorIs(t, err, ErrChanged)
	require.NoError(t, r.Close())
	_, err = s.Open(ctx, splits[0], 0)
	require.ErrorIs(t, err, ErrChanged)

	write(t, name, "one\nTWO\n")
	require.NoError(t, os.Chtimes(name, time.Time{}, time.Unix(1, 0)))
	_, err = s.Open(ctx, splits[0], 4)
	require.ErrorIs(t, err, ErrChanged)
	require.NoError(t, os.Remove(name))
	_, err = s.Open(ctx, splits[0], 4)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestOffsetsThatNoReaderGave(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for _, name := range []string{write(t, filepath.Join(dir, "a"), "one\ntwo"), write(t, filepath.Join(dir, "a.gz"), zip(t, "one\ntwo"))} {
		s := Lines(name)
		splits, err := s.Splits(ctx)
		require.NoError(t, err)
		for _, offset := range []uint64{1, 3, 5, 8, 1000} {
			_, err := s.Open(ctx, splits[0], offset)
			require.ErrorIs(t, err, ErrOffset, "%s at %d", name, offset)
		}
		r, err := s.Open(ctx, splits[0], 7)
		require.NoError(t, err)
		got, _ := drain(t, r)
		require.Empty(t, got)
	}
}

func TestLineTooLongNamesFileAndOffset(t *testing.T) {
	name := write(t, filepath.Join(t.TempDir(), "a"), "ok\n"+strings.Repeat("x", 11)+"\nok\n")
	for _, buffer := range []int{1, 4, 100} {
		s := Lines(name).With(SourceOptions{MaxLine: 10, BufferBytes: buffer})
		splits, err := s.Splits(context.Background())
		require.NoError(t, err)
		r, err := s.Open(context.Background(), splits[0], 0)
		require.NoError(t, err)
		_, _, err = r.Next()
		require.NoError(t, err)
		for range 2 {
			_, _, err = r.Next()
			require.ErrorIs(t, err, ErrLineTooLong)
			require.ErrorContains(t, err, name+":3")
		}
		require.NoError(t, r.Close())
	}
}

func TestJSONL(t *testing.T) {
	type point struct{ X, Y int }
	name := write(t, filepath.Join(t.TempDir(), "a.jsonl"), "{\"x\":1}\n\n  \r\n{\"x\":\n{\"y\":2}")
	ctx := context.Background()
	s := JSONL[point](name)
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	r, err := s.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	defer r.Close()
	v, next, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, point{X: 1}, v)
	require.Equal(t, uint64(8), next)

	_, next, err = r.Next()
	var bad *DecodeError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, uint64(13), bad.Offset)
	require.ErrorContains(t, err, name+":13: unexpected end of JSON input")
	require.Equal(t, uint64(19), next)

	v, _, err = r.Next()
	require.NoError(t, err, "whoever may set the record aside can go on")
	require.Equal(t, point{Y: 2}, v)
	_, _, err = r.Next()
	require.Equal(t, io.EOF, err)
}

func TestDecoded(t *testing.T) {
	name := write(t, filepath.Join(t.TempDir(), "a"), "a\nbb\n\n")
	empty := errors.New("empty")
	s := Decoded(Lines(name), func(l Line) (int, error) {
		if l.Text == "" {
			return 1, empty
		}
		return len(l.Text), nil
	})
	splits, err := s.Splits(context.Background())
	require.NoError(t, err)
	r, err := s.Open(context.Background(), splits[0], 2)
	require.NoError(t, err)
	defer r.Close()
	v, next, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, 2, v)
	require.Equal(t, uint64(5), next)
	v, _, err = r.Next()
	require.ErrorIs(t, err, empty)
	require.Zero(t, v)
}

func FuzzParseSplit(f *testing.F) {
	f.Add(split{File: "a \" b\n", Start: 1, End: 2, Size: 3, Modified: -4, Gzip: true}.String())
	f.Add(`"a" 0-1 of 1 at 5`)
	f.Fuzz(func(t *testing.T, identity string) {
		if s, err := parseSplit(identity); err == nil && s.String() != identity {
			t.Fatalf("%q became %q", identity, s)
		}
	})
}

func TestParseSplitRefuses(t *testing.T) {
	for _, identity := range []string{"", "a", `"a" 0-1 of 1 at 5 `, `"a" 2-1 of 3 at 5`, `"a" 0-4 of 3 at 5`, `"a" 00-1 of 1 at 5`, `"a" -1-1 of 1 at 5`} {
		_, err := parseSplit(identity)
		require.Error(t, err, identity)
	}
}

func ExampleLines() {
	dir, _ := os.MkdirTemp("", "lines")
	defer os.RemoveAll(dir)
	_ = os.WriteFile(filepath.Join(dir, "words.txt"), []byte("to be\nor not to be\n"), 0o666)
	s := Lines(filepath.Join(dir, "**", "*.txt"))
	splits, _ := s.Splits(context.Background())
	r, _ := s.Open(context.Background(), splits[0], 0)
	defer r.Close()
	for {
		l, next, err := r.Next()
		if err != nil {
			break
		}
		fmt.Println(l.Offset, next, l.Text)
	}
	// Output:
	// 0 6 to be
	// 6 19 or not to be
}
