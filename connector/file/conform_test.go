package file

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/connectortest"
	"github.com/understudy-stream/understudy/operator"
)

// stepDisk lets the suite decide what becomes of each system call that changes something.
type stepDisk struct {
	osDisk
	do connectortest.Steps
}

func (d *stepDisk) Open(name string, flag int) (h handle, err error) {
	if flag&os.O_CREATE == 0 {
		h, err = d.osDisk.Open(name, flag)
	} else {
		err = d.do(func() error { h, err = d.osDisk.Open(name, flag); return err }, nil)
		if err != nil && h != nil {
			h.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return &stepHandle{handle: h, do: d.do}, nil
}

func (d *stepDisk) Rename(from, to string) error {
	return d.do(func() error { return d.osDisk.Rename(from, to) }, nil)
}

func (d *stepDisk) Remove(name string) error {
	return d.do(func() error { return d.osDisk.Remove(name) }, nil)
}

type stepHandle struct {
	handle
	do connectortest.Steps
}

func (h *stepHandle) Write(p []byte) (n int, err error) {
	err = h.do(func() error { n, err = h.handle.Write(p); return err },
		func() error { n, err = h.handle.Write(p[:len(p)/2]); return err })
	return n, err
}

func (h *stepHandle) Truncate(size int64) error {
	return h.do(func() error { return h.handle.Truncate(size) }, nil)
}

func TestConforms(t *testing.T) {
	connectortest.CausalSink(t, func(t testing.TB) connectortest.CausalPlace {
		dir, o := t.TempDir(), SinkOptions{Patience: 5 * time.Millisecond}
		return connectortest.CausalPlace{
			Sink: func() operator.CausalSink { return Sink(dir, o) },
			Read: func(task int) []string { return wholeLines(t, dir, task) },
			Faulty: func(do connectortest.Steps) operator.CausalSink {
				d := Sink(dir, o)
				d.disk = &stepDisk{do: do}
				return d
			},
		}
	})
}

// wholeLines is what a reader sees who leaves a line alone that has no end yet.
func wholeLines(t testing.TB, dir string, task int) []string {
	data, err := os.ReadFile(filepath.Join(dir, partName(task)+".jsonl"))
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	lines := strings.Split(string(data), "\n")
	return lines[:len(lines)-1]
}

func TestSourceConforms(t *testing.T) {
	var text strings.Builder
	for n := range 60 {
		fmt.Fprintf(&text, "{\"n\":%d,\"x\":%q}\n", n, strings.Repeat("x", n%11*3))
	}
	for name, o := range map[string]SourceOptions{
		"whole":  {},
		"splits": {SplitBytes: 200, BufferBytes: 64},
	} {
		t.Run("lines/"+name, func(t *testing.T) {
			connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[Line] {
				plain := write(t, filepath.Join(t.TempDir(), "a.jsonl"), text.String())
				return connectortest.SourceInput[Line]{
					Source:     func() operator.Source[Line] { return Lines(plain).With(o) },
					Records:    want(plain, text.String()),
					BadSplits:  []string{split{File: plain, End: 1, Size: 1}.String(), split{File: plain + ".no"}.String()},
					BadOffsets: []uint64{1, uint64(text.Len() + 1)},
				}
			})
		})
	}
	t.Run("gzip", func(t *testing.T) {
		connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[Line] {
			packed := write(t, filepath.Join(t.TempDir(), "a.gz"), zip(t, text.String()))
			return connectortest.SourceInput[Line]{
				Source:     func() operator.Source[Line] { return Lines(packed) },
				Records:    want(packed, text.String()),
				BadOffsets: []uint64{1, uint64(text.Len() + 1)},
			}
		})
	})
	t.Run("jsonl", func(t *testing.T) {
		type record struct {
			N int
			X string
		}
		connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[record] {
			name := write(t, filepath.Join(t.TempDir(), "a.jsonl"), text.String())
			in := connectortest.SourceInput[record]{
				Source: func() operator.Source[record] {
					return DecodedJSON[record](Lines(name).With(SourceOptions{SplitBytes: 300}))
				},
			}
			for n := range 60 {
				in.Records = append(in.Records, record{n, strings.Repeat("x", n%11*3)})
			}
			return in
		})
	})
}
