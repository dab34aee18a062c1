package outside

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/postgres"
)

// put adds text to a file.
func put(t *testing.T, dir, name, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// looked is what a look finds.
func looked(t *testing.T, tail *Tail) (lines []string) {
	t.Helper()
	require.NoError(t, tail.Look(func(part string, line []byte, _ time.Time) error {
		lines = append(lines, part+" "+string(line))
		return nil
	}))
	return lines
}

func TestTail(t *testing.T) {
	dir := t.TempDir()
	tail := NewTail(filepath.Join(dir, "part-*"))
	defer func() { require.NoError(t, tail.Close()) }()
	require.Empty(t, looked(t, tail))
	put(t, dir, "part-0", "one\nto")
	put(t, dir, "other", "no\n")
	require.Equal(t, []string{"part-0 one"}, looked(t, tail))
	put(t, dir, "part-0", "rn\n\n")
	put(t, dir, "part-1", "x\n")
	require.Equal(t, []string{"part-0 torn", "part-0 ", "part-1 x"}, looked(t, tail))
	require.Empty(t, looked(t, tail))

	// A copy in the file's place goes on where the file was.
	text, err := os.ReadFile(filepath.Join(dir, "part-0"))
	require.NoError(t, err)
	put(t, dir, "copy", string(text)+"more\n")
	require.NoError(t, os.Rename(filepath.Join(dir, "copy"), filepath.Join(dir, "part-0")))
	require.Equal(t, []string{"part-0 more"}, looked(t, tail))

	// What a stopped writer adds to the file that was replaced is not to be seen.
	old, err := os.OpenFile(filepath.Join(dir, "part-0"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	text, err = os.ReadFile(filepath.Join(dir, "part-0"))
	require.NoError(t, err)
	put(t, dir, "copy", string(text))
	require.NoError(t, os.Rename(filepath.Join(dir, "copy"), filepath.Join(dir, "part-0")))
	_, err = old.WriteString("late\n")
	require.NoError(t, errors.Join(err, old.Close()))
	require.Empty(t, looked(t, tail))
	put(t, dir, "part-0", "in time\n")
	require.Equal(t, []string{"part-0 in time"}, looked(t, tail))

	// A file that comes when the directory was not changed for long is found.
	long := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(dir, long, long))
	require.Empty(t, looked(t, tail))
	put(t, dir, "part-2", "new\n")
	require.Equal(t, []string{"part-2 new"}, looked(t, tail))

	// Text gives whole lines with their ends.
	put(t, dir, "part-2", "a\nb\nc")
	var texts []string
	require.NoError(t, tail.Text(func(part string, text []byte, _ time.Time) error {
		texts = append(texts, part+" "+string(text))
		return nil
	}))
	require.Equal(t, []string{"part-2 a\nb\n"}, texts)

	// What is longer than one read comes whole.
	wide := strings.Repeat("x", readAtMost+10)
	put(t, dir, "part-1", wide+"\ny\n")
	require.Equal(t, []string{"part-1 " + wide, "part-1 y"}, looked(t, tail))

	enough := errors.New("enough")
	put(t, dir, "part-1", "z\n")
	require.ErrorIs(t, tail.Look(func(string, []byte, time.Time) error { return enough }), enough)
}

func TestFilesAreFollowed(t *testing.T) {
	place, err := At("file:"+t.TempDir(), "run1", 1)
	require.NoError(t, err)
	dir := place.(*files).dir
	require.NoError(t, os.Mkdir(dir, 0o700))
	put(t, dir, "part-00000.jsonl", "1\n")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	seen := ""
	require.NoError(t, place.Follow(ctx, func(_ string, record []byte, _ time.Time) error {
		if seen += string(record); seen == "1" {
			put(t, dir, "part-00000.jsonl", "2\n")
		} else {
			stop()
		}
		return nil
	}))
	require.Equal(t, "12", seen)
	require.NoError(t, place.Remove(t.Context()))
	require.NoDirExists(t, dir)
}

func TestPlacesThatAreNone(t *testing.T) {
	for _, url := range []string{"http://host/", "", "x"} {
		_, err := At(url, "a", 1)
		require.ErrorIs(t, err, ErrNoPlace, url)
	}
	_, err := At("postgres://a:b@host/x?table=t", "a", 1)
	require.ErrorIs(t, err, postgres.ErrSecretInURL)
	for _, url := range []string{"file:x?colour=red", "nats://host/x?colour=red", "kafka://host/x?colour=red", "postgres://host/x?table=\"a\"b", "postgres://host/x?table=\"a\""} {
		_, err := At(url, "a", 1)
		require.Error(t, err, url)
	}
}

// A run's place has the URL's name and a suffix, all that belongs to it included.
func TestNamesOfPlaces(t *testing.T) {
	place, err := At("kafka://host/counts", "r1", 3)
	require.NoError(t, err)
	require.Equal(t, "countsr1", place.(*topic).name)
	require.Equal(t, "counts.understudyr1", place.(*topic).options.Journal)
	require.Equal(t, 3, place.(*topic).options.Partitions)
	require.NotNil(t, place.Transactional())
	place, err = At("nats://host/COUNTS?subject=counts", "r1", 2)
	require.NoError(t, err)
	stream, subject := place.(*streams).of(1)
	require.Equal(t, []string{"COUNTSr1-1", "countsr1.1"}, []string{stream, subject})
	require.Nil(t, place.Transactional())
	place, err = At("postgres://host/x?table=s.counts&column=line", "r1", 2)
	require.NoError(t, err)
	require.Equal(t, "s.countsr1", place.(*table).options.Table)
	require.Equal(t, "line", place.(*table).options.Column)
}
