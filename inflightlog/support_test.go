package inflightlog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

// memFiles keeps files in memory and fails on request.
type memFiles struct {
	during func() // called in the middle of each read and write, with no lock held
	mu     struct {
		sync.Mutex
		files map[string]*memFile
		fail  error // of Create and WriteAt
		made  int
	}
}

func newMemFiles() *memFiles {
	m := &memFiles{}
	m.mu.files = map[string]*memFile{}
	return m
}

func (m *memFiles) failWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.fail = err
}

func (m *memFiles) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.fail != nil {
		return nil, m.mu.fail
	}
	if m.mu.files[name] != nil {
		return nil, fmt.Errorf("name %s used twice", name)
	}
	m.mu.files[name] = &memFile{of: m}
	m.mu.made++
	return m.mu.files[name], nil
}

func (m *memFiles) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.files[name] == nil {
		return fmt.Errorf("no file %s", name)
	}
	delete(m.mu.files, name)
	return nil
}

// size gives how many files there are, and their bytes.
func (m *memFiles) size() (files int, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.mu.files {
		f.mu.Lock()
		bytes += int64(len(f.mu.data))
		f.mu.Unlock()
	}
	return len(m.mu.files), bytes
}

// each changes the bytes of every file.
func (m *memFiles) each(change func(data []byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.mu.files {
		f.mu.Lock()
		f.mu.data = change(f.mu.data)
		f.mu.Unlock()
	}
}

type memFile struct {
	of *memFiles
	mu struct {
		sync.Mutex
		data   []byte
		reads  int
		closed bool
	}
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.of.mu.Lock()
	fail := f.of.mu.fail
	f.of.mu.Unlock()
	if f.of.during != nil {
		f.of.during()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.closed {
		return 0, errors.New("write to a closed file")
	}
	if off > int64(len(f.mu.data)) {
		return 0, fmt.Errorf("hole at %d, file has %d", off, len(f.mu.data))
	}
	if fail != nil { // a torn write
		n := len(p) / 2
		f.mu.data = append(f.mu.data[:off], p[:n]...)
		return n, fail
	}
	f.mu.data = append(f.mu.data[:off], p...)
	return len(p), nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if f.of.during != nil {
		f.of.during()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.reads++
	if f.mu.closed {
		return 0, errors.New("read from a closed file")
	}
	n := copy(p, f.mu.data[min(off, int64(len(f.mu.data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.closed {
		return errors.New("closed twice")
	}
	f.mu.closed = true
	return nil
}

var errNoSpace = fmt.Errorf("write: %w", syscall.ENOSPC)

// history is the naive model of a channel: every committed element ever, one by one.
type history struct {
	start  determinant.Cursor
	at     []determinant.Cursor // at[i]: position before element i; one more than elements
	bytes  [][]byte
	epochs []determinant.Epoch
}

func newHistory(start determinant.Cursor) *history {
	return &history{start: start, at: []determinant.Cursor{start}}
}

func (h *history) add(element []byte) {
	var e Element
	if n, err := Decode(element, &e); err != nil || n != len(element) {
		panic(fmt.Sprint("model: ", n, err))
	}
	c := h.end()
	h.epochs = append(h.epochs, c.Epoch)
	h.bytes = append(h.bytes, element)
	c.Next++
	if e.Kind.EndsEpoch() {
		c.Epoch, c.Bytes, c.CRC = c.Epoch+1, 0, 0
	} else {
		c.Bytes += uint64(len(element))
		c.CRC = crc32.Update(c.CRC, crc32.MakeTable(crc32.Castagnoli), element)
	}
	h.at = append(h.at, c)
}

func (h *history) end() determinant.Cursor { return h.at[len(h.at)-1] }

func (h *history) cursor(seq determinant.Seq) determinant.Cursor { return h.at[seq-h.start.Next] }

func (h *history) join(from, to determinant.Seq) []byte {
	all := []byte{}
	for _, b := range h.bytes[from-h.start.Next : to-h.start.Next] {
		all = append(all, b...)
	}
	return all
}

// check compares a batch with the model.
func (h *history) check(t require.TestingT, b *Batch, from determinant.Seq) {
	require.Equal(t, from, b.First)
	require.Equal(t, len(b.Payload), cap(b.Payload), "appending to a batch must not reach its neighbour")
	require.Equal(t, b.First+determinant.Seq(b.Count), b.End.Next)
	require.Equal(t, h.cursor(b.First), b.Start)
	require.Equal(t, h.cursor(b.End.Next), b.End)
	require.Equal(t, h.join(b.First, b.End.Next), append([]byte{}, b.Payload...))
	var e Element
	at := 0
	for seq := b.First; seq < b.End.Next; seq++ {
		require.Equal(t, b.Epoch, h.epochs[seq-h.start.Next])
		n, err := Decode(b.Payload[at:], &e)
		require.NoError(t, err)
		at += n
		require.Equal(t, e.Kind.Seals(), b.Control && seq == b.End.Next-1)
	}
	require.NoError(t, b.Check(0, b.Start))
}

// put appends a committed record to log and model.
func (h *history) put(l *Log, payload []byte) {
	l.Record(7, true, payload)
	l.Commit()
	h.add(AppendRecord(nil, 7, true, payload))
}

// control appends a committed control element to log and model.
func (h *history) control(l *Log, e Element) {
	l.Control(e)
	l.Commit()
	h.add(AppendControl(nil, e))
}

// barrier ends the present epoch in log and model.
func (h *history) barrier(l *Log) {
	h.control(l, Element{Kind: Barrier, Epoch: h.end().Epoch, Depth: determinant.Full})
}

// drain takes all there is from the log, checks it, and gives the position reached.
func (h *history) drain(t *testing.T, l *Log, from determinant.Cursor) determinant.Cursor {
	t.Helper()
	for {
		b, err := l.Next(-1)
		require.NoError(t, err)
		if b == nil {
			return from
		}
		h.check(t, b, from.Next)
		require.NoError(t, b.Check(0, from))
		l.Grant(b.End.Next)
		from = b.End
	}
}
