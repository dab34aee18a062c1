package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// A job goes on at another pace, or at none, with the splits that it began with.
func TestPacedAndUnpacedSplitsAreOpened(t *testing.T) {
	name := filepath.Join(t.TempDir(), "in")
	require.NoError(t, os.WriteFile(name, []byte(strings.Repeat("a line\n", 1000)), 0o600))
	source := func(rate int64) operator.Source[file.Line] {
		return (&runOptions{rate: rate}).pacedFiles(file.Lines(name), file.SourceOptions{})
	}
	for _, began := range []int64{0, 1 << 20} {
		splits, err := source(began).Splits(t.Context())
		require.NoError(t, err)
		require.Len(t, splits, 1)
		for _, now := range []int64{0, 100 << 10, 1 << 30} {
			s := source(now)
			namer, ok := s.(operator.InputNamer)
			require.True(t, ok)
			require.Contains(t, namer.InputOf(splits[0]), "in, 7000 bytes of ")
			r, err := s.Open(context.Background(), splits[0], 700)
			require.NoError(t, err)
			for i := 100; ; i++ {
				l, next, err := r.Next()
				if err == operator.ErrNotReady {
					i--
					<-r.Ready()
					continue
				}
				if err == io.EOF {
					require.Equal(t, 1000, i)
					break
				}
				require.NoError(t, err)
				require.EqualValues(t, 7*i, l.Offset)
				require.EqualValues(t, 7*i+7, next)
			}
			require.NoError(t, r.Close())
		}
	}
	// One that is ahead of a slower pace goes on at once, and what is read again is not slow.
	fast, slow := source(1<<30), source(1000)
	splits, err := fast.Splits(t.Context())
	require.NoError(t, err)
	for _, offset := range []uint64{6300, 0} {
		r, err := slow.Open(context.Background(), splits[0], offset)
		require.NoError(t, err)
		for at := offset; at < 6300 || at == offset; at += 7 {
			_, next, err := r.Next()
			require.NoError(t, err)
			require.Equal(t, at+7, next)
		}
		require.NoError(t, r.Close())
	}
	_, err = source(1<<20).Open(context.Background(), "12 nonsense", 0)
	require.ErrorContains(t, err, "not the identity of a split")
}

func TestGoesOnAtAnotherPace(t *testing.T) {
	for _, flags := range [][]string{nil, {"--workers", "2"}} {
		for _, rates := range [][2][]string{{{"--rate", "200KiB"}, nil}, {nil, {"--rate", "64MiB"}}} {
			input, out := goTree(t, 2, 1), filepath.Join(t.TempDir(), "out")
			p := run(t, "wordcount", input, out, append(rates[0], flags...)...)
			require.True(t, p.until(func() bool { return outputSize(out) > 1<<20 }), "it ended too early: %s", &p.stderr)
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
			require.Equal(t, 130, p.code(), "stderr: %s", &p.stderr)
			p = run(t, "wordcount", input, out, append(rates[1], flags...)...)
			require.Zero(t, p.code(), "stderr: %s", &p.stderr)
			requireClean(t, "running", "--output", out, "--words", input)
		}
	}
}
