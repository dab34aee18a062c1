package file

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A file is found once, when it has stopped to change, whatever becomes of it later.
func TestFilesAreFoundWhenTheyAreWhole(t *testing.T) {
	dir := t.TempDir()
	src := Lines(filepath.Join(dir, "*.txt"), filepath.Join(dir, "more", "*")).With(SourceOptions{Watch: time.Second, SplitBytes: 4})
	require.Equal(t, time.Second, src.DiscoveryInterval())
	require.NoError(t, os.Mkdir(filepath.Join(dir, "more"), 0o777))
	known, err := src.Splits(t.Context())
	require.NoError(t, err, "nothing is there yet")
	require.Empty(t, known)
	look := func() (n int) {
		t.Helper()
		found, all, err := src.Discover(t.Context(), known)
		require.NoError(t, err)
		require.False(t, all)
		known = append(known, found...)
		return len(found)
	}
	require.Zero(t, look())
	a := write(t, filepath.Join(dir, "a.txt"), "")
	require.Zero(t, look())
	require.Zero(t, look(), "nothing is in it")
	write(t, a, "1\n")
	require.Zero(t, look(), "it was empty a moment ago")
	write(t, a, "1\n2\n3\n")
	require.Zero(t, look(), "it was shorter a moment ago")
	write(t, filepath.Join(dir, "more", "b.gz"), zip(t, "4\n5\n"))
	require.Equal(t, 2, look())
	require.Equal(t, 1, look())
	write(t, a, "other\n")
	require.Zero(t, look())
	require.Zero(t, look(), "a file is known by its name")
	require.NoError(t, os.Remove(a))
	require.Zero(t, look())
	require.Zero(t, look(), "one that is gone is no error")
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "c.txt")))
	require.Zero(t, look(), "a link to nothing is no file")
	require.Len(t, known, 3)
	_, _, err = src.Discover(t.Context(), []string{"x"})
	require.Error(t, err)
	_, err = Lines(filepath.Join(dir, "*.none")).Splits(t.Context())
	require.ErrorIs(t, err, ErrNoMatch)
	require.Zero(t, Lines(a).DiscoveryInterval())
	_, err = Lines(a).With(SourceOptions{Watch: 1}).Splits(t.Context())
	require.ErrorContains(t, err, "want at least 1ms")
}

// A file that is no CSV is noticed before the job has it, and others come when it is gone.
func TestFilesOfCSVAreFound(t *testing.T) {
	dir := t.TempDir()
	o := SourceOptions{Watch: time.Second}
	src := DecodedCSV[map[string]string](Lines(filepath.Join(dir, "*.csv")).With(o), CSVOptions{}).(csvSource[map[string]string])
	require.Equal(t, time.Second, src.DiscoveryInterval())
	write(t, filepath.Join(dir, "a.csv"), "id\n1\n")
	bad := write(t, filepath.Join(dir, "b.csv"), "id,id\n1,2\n")
	_, _, err := src.Discover(t.Context(), nil)
	require.NoError(t, err)
	_, _, err = src.Discover(t.Context(), nil)
	require.ErrorContains(t, err, "b.csv")
	require.NoError(t, os.Remove(bad))
	found, _, err := src.Discover(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, found, 1)
}
