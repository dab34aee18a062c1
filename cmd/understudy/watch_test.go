package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Files appear in a directory while worker processes are killed. When all is shown, the command is interrupted, since such a job has no
// end, and run again with one more.
func TestFilesAppear(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	require.NoError(t, os.Mkdir(in, 0o777))
	size := int64(0)
	put := func(name string) {
		var text strings.Builder
		for i := range 4000 {
			fmt.Fprintf(&text, "line %d of %s\n", i, name)
		}
		size += int64(text.Len())
		require.NoError(t, os.WriteFile(filepath.Join(in, "."+name), []byte(text.String()), 0o600))
		require.NoError(t, os.Rename(filepath.Join(in, "."+name), filepath.Join(in, name)))
	}
	put("0.txt")
	for round := range 2 {
		p := start(t, "run", "passthrough", "--source", "file:"+in+"/*.txt?watch=20ms", "--output", out, "--workers", "3", "--parallelism", "2",
			"--checkpoint-interval", "100ms", "--chaos", "kill=150ms,limit=6,target=worker", "-o", "json")
		for i := range 4 {
			require.True(t, p.until(func() bool { return innerSize(t, out) >= size }), "it ended: %s", &p.stderr)
			require.Equal(t, size, innerSize(t, out))
			put(fmt.Sprintf("%d-%d.txt", round, i))
		}
		require.True(t, p.until(func() bool { return innerSize(t, out) >= size }), "it ended: %s", &p.stderr)
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
		require.Equal(t, 130, p.code(), "stderr: %s", &p.stderr)
	}
	requireClean(t, "ids", "--input", in, "--output", out, "--id", "file,offset")
}

// innerSize is how many bytes of input are visible. A line that is being written is not.
func innerSize(t *testing.T, out string) (size int64) {
	parts, err := filepath.Glob(filepath.Join(out, "part-*"))
	require.NoError(t, err)
	for _, part := range parts {
		text, err := os.ReadFile(part)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if !strings.HasSuffix(line, "\n") {
				break
			}
			var l passedLine
			require.NoError(t, json.Unmarshal([]byte(line), &l))
			size += int64(len(l.Line)) + 1
		}
	}
	return size
}
