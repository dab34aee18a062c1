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

func (d *stepDisk) Link(from, to string) error {
	return d.do(func() error { return d.osDisk.Link(from, to) }, nil)
}

func (d *stepDisk) Mkdir(name string) error {
	return d.do(func() error { return d.osDisk.Mkdir(name) }, nil)
}

func (d *stepDisk) SyncDir(string) error { return nil }

func (d *stepDisk) Remove(name string) error {
	return d.do(func() error { return d.osDisk.Remove(name) }, nil)
}

func (h *stepHandle) Sync() error { return nil }

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
	layouts := map[string]SinkOptions{"one file": {}}
	if everyCall { // twice as many steps, each of which the suite has fail in three ways
		layouts["shared, closed by size"] = SinkOptions{Shared: true, RollBytes: 100, Key: func([]byte) (string, error) { return "k", nil }}
	}
	for name, o := range layouts {
		t.Run(name, func(t *testing.T) {
			o.Patience = 5 * time.Millisecond
			connectortest.CausalSink(t, func(t testing.TB) connectortest.CausalPlace {
				dir, o := t.TempDir(), o
				make := func(d disk) operator.CausalSink {
					s := Sink(dir, o)
					s.disk = d
					return s
				}
				return connectortest.CausalPlace{
					Sink: func() operator.CausalSink {
						return make(&stepDisk{do: func(step, _ func() error) error { return step() }})
					},
					Read:   func(task int) []string { return wholeLines(t, dir, task) },
					Faulty: func(do connectortest.Steps) operator.CausalSink { return make(&stepDisk{do: do}) },
				}
			})
		})
	}
}

// wholeLines is what a reader sees who leaves a line alone that has no end yet.
func wholeLines(t testing.TB, dir string, task int) []string {
	var text strings.Builder
	for _, pattern := range []string{"*.jsonl", "*/*.jsonl"} {
		names, err := filepath.Glob(filepath.Join(dir, strings.Replace(pattern, "*.jsonl", partName(task)+"*.jsonl", 1)))
		require.NoError(t, err)
		for _, name := range names {
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			text.Write(data)
		}
	}
	lines := strings.Split(text.String(), "\n")
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
	t.Run("watched", func(t *testing.T) {
		connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[Line] {
			dir := t.TempDir()
			plain := write(t, filepath.Join(dir, "a.jsonl"), text.String())
			grown := 0
			return connectortest.SourceInput[Line]{
				Source: func() operator.Source[Line] {
					return Lines(filepath.Join(dir, "*.jsonl")).With(SourceOptions{Watch: time.Second})
				},
				Records: want(plain, text.String()),
				Grow: func() [][]Line {
					grown++
					name := write(t, filepath.Join(dir, fmt.Sprintf("%d.jsonl", grown)), "new\nand more\n")
					return [][]Line{want(name, "new\nand more\n")}
				},
			}
		})
	})
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

func TestCSVConforms(t *testing.T) {
	text := "n,text\n"
	var rows [][]string
	for n := range 40 {
		row := []string{fmt.Sprint(n), strings.Repeat("x\n", n%4)}
		rows = append(rows, row)
		text += fmt.Sprintf("%s,\"%s\"\n", row[0], row[1])
	}
	for name, pack := range map[string]func(string) string{"a.csv": func(s string) string { return s }, "a.csv.gz": func(s string) string { return zip(t, s) }} {
		t.Run(name, func(t *testing.T) {
			connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[[]string] {
				name := write(t, filepath.Join(t.TempDir(), name), pack(text))
				return connectortest.SourceInput[[]string]{
					Source:     func() operator.Source[[]string] { return CSV[[]string](name) },
					Records:    rows,
					BadSplits:  []string{split{File: name, End: 1, Size: 1}.String(), split{File: name + ".no"}.String()},
					BadOffsets: []uint64{3, uint64(len("n,text\n") + 1), uint64(len(text) + 1)},
				}
			})
		})
	}
}
