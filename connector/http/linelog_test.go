package http

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// logModel is what a log should hold.
type logModel struct {
	records []record
	ends    []uint64 // position after each
}

func (m *logModel) end() uint64 {
	if len(m.ends) == 0 {
		return 0
	}
	return m.ends[len(m.ends)-1]
}

// next makes a record that continues the log.
func (m *logModel) next(term uint64, lines int) record {
	r := record{Kind: kindLines, Term: term, Time: int64(len(m.records)), Lines: uint64(lines), Key: fmt.Sprint("k", len(m.records))}
	if n := len(m.records); n > 0 {
		r.First = m.records[n-1].First + m.records[n-1].Lines
	}
	for i := range lines {
		r.Body = fmt.Appendf(r.Body, "%d\n", int(r.First)+i)
	}
	return r
}

func (m *logModel) add(r record) []byte {
	data := appendRecord(nil, &r)
	m.ends = append(m.ends, m.end()+uint64(len(data)))
	m.records = append(m.records, r)
	return data
}

// check compares all that a log gives.
func (m *logModel) check(t require.TestingT, l *lineLog) {
	s := l.state()
	require.Equal(t, m.end(), s.End)
	for i, r := range m.records {
		if m.ends[i] <= s.Head.Base {
			_, _, ok := l.found(r.Key)
			require.False(t, ok, "a key of a record that is gone")
			continue
		}
		found, readable, ok := l.found(r.Key)
		require.True(t, ok)
		require.Equal(t, m.ends[i] <= s.Readable, readable)
		require.Equal(t, taken{position: found.position, first: r.First, lines: r.Lines, sum: r.sum()}, found)
		for line := r.First; line < r.First+r.Lines; line += max(1, r.Lines/2) {
			data, _, wait, err := l.readLines(line, 100)
			require.NoError(t, err)
			if m.ends[i] > s.Readable {
				require.Empty(t, data)
				require.NotNil(t, wait)
				continue
			}
			var got record
			_, err = decodeRecord(data, &got)
			require.NoError(t, err)
			require.Equal(t, r, got, "line %d", line)
		}
	}
	last := uint64(0)
	for _, start := range s.Terms {
		require.Greater(t, start.Term, last)
		last = start.Term
	}
}

func testLogOptions() logOptions { return logOptions{SegmentBytes: 400, MaxKeys: 1000} }

// TestLogModel appends, cuts, drops, opens again, in any order.
func TestLogModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "log")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		l, err := openLog(dir, testLogOptions())
		require.NoError(t, err)
		defer func() { require.NoError(t, l.close()) }()
		m, term, readable := &logModel{}, uint64(1), 0
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				var data []byte
				for range rapid.IntRange(1, 4).Draw(t, "records") {
					data = append(data, m.add(m.next(term, rapid.IntRange(1, 30).Draw(t, "lines")))...)
				}
				require.NoError(t, l.append(data))
			},
			"term": func(*rapid.T) { term++ },
			"allow": func(t *rapid.T) {
				if readable < len(m.ends) {
					readable = rapid.IntRange(readable+1, len(m.ends)).Draw(t, "readable")
					l.allow(m.ends[readable-1])
				}
			},
			"cut": func(t *rapid.T) {
				n := rapid.IntRange(readable, len(m.ends)).Draw(t, "records")
				m.records, m.ends = m.records[:n], m.ends[:n]
				if m.end() >= l.state().Head.Base {
					require.NoError(t, l.cut(m.end()))
				}
			},
			"drop": func(t *rapid.T) {
				if readable > 0 {
					require.NoError(t, l.drop(m.ends[rapid.IntRange(0, readable-1).Draw(t, "records")], nil))
				}
			},
			"open": func(t *rapid.T) {
				require.NoError(t, l.close())
				l, err = openLog(dir, testLogOptions())
				require.NoError(t, err)
				if readable > 0 {
					l.allow(m.ends[readable-1])
				}
			},
			"": func(t *rapid.T) { m.check(t, l) },
		})
	})
}

// TestTornLog cuts the last segment short at every byte: the log has the whole records before it, and goes on.
func TestTornLog(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), &logModel{}
	l, err := openLog(dir, testLogOptions())
	require.NoError(t, err)
	for range 12 {
		require.NoError(t, l.append(m.add(m.next(1, 10))))
	}
	names, err := segmentsIn(dir)
	require.NoError(t, err)
	require.Greater(t, len(names), 1)
	require.NoError(t, l.close())
	last := names[len(names)-1]
	whole, err := os.ReadFile(last)
	require.NoError(t, err)
	base := m.end() - uint64(len(whole)-segmentHeadBytes)
	for n := len(whole); n >= segmentHeadBytes; n-- {
		torn := append([]byte(nil), whole[:n]...)
		if n%3 == 0 && n > segmentHeadBytes {
			torn[n-1] ^= 0xff // a bad byte instead of a missing one
		}
		require.NoError(t, os.WriteFile(last, torn, 0o666))
		l, err := openLog(dir, testLogOptions())
		require.NoError(t, err)
		limit := base + uint64(n-segmentHeadBytes)
		if n%3 == 0 && n > segmentHeadBytes {
			limit--
		}
		for m.end() > limit {
			m.records, m.ends = m.records[:len(m.records)-1], m.ends[:len(m.ends)-1]
		}
		m.check(t, l)
		more := logModel{records: m.records[:len(m.records):len(m.records)], ends: m.ends[:len(m.ends):len(m.ends)]}
		require.NoError(t, l.append(more.add(more.next(2, 3))))
		require.NoError(t, l.close())
		l, err = openLog(dir, testLogOptions())
		require.NoError(t, err)
		more.check(t, l)
		require.NoError(t, l.close())
		files, err := segmentsIn(dir)
		require.NoError(t, err)
		for _, name := range files[len(names):] {
			require.NoError(t, os.Remove(name))
		}
	}
	require.NoError(t, os.Truncate(names[0], 200))
	_, err = openLog(dir, testLogOptions())
	require.ErrorIs(t, err, ErrCorrupt, "what is not at the end cannot be a write that was cut short")
}

func TestGapBetweenSegments(t *testing.T) {
	dir, m := t.TempDir(), &logModel{}
	l, err := openLog(dir, testLogOptions())
	require.NoError(t, err)
	for range 40 {
		require.NoError(t, l.append(m.add(m.next(1, 10))))
	}
	require.NoError(t, l.close())
	names, err := segmentsIn(dir)
	require.NoError(t, err)
	require.NoError(t, os.Remove(names[1]))
	_, err = openLog(dir, testLogOptions())
	require.ErrorIs(t, err, ErrCorrupt)
}

// TestLogWithLargeRecords has records that are longer than what is read at once.
func TestLogWithLargeRecords(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), &logModel{}
	l, err := openLog(dir, logOptions{SegmentBytes: 4 << 20, MaxKeys: 10})
	require.NoError(t, err)
	for i := range 12 {
		require.NoError(t, l.append(m.add(m.next(1, 1+i%3*70_000))))
	}
	require.NoError(t, l.close())
	l, err = openLog(dir, logOptions{SegmentBytes: 4 << 20, MaxKeys: 10})
	require.NoError(t, err)
	defer l.close()
	l.allow(m.end())
	_, _, known := l.found("k1")
	require.False(t, known, "only the newest keys are remembered")
	for i, r := range m.records {
		data, _, _, err := l.readLines(r.First+r.Lines-1, 1000)
		require.NoError(t, err)
		var got record
		_, err = decodeRecord(data, &got)
		require.NoError(t, err)
		require.Equal(t, r, got, "%d", i)
	}
	at := uint64(0)
	for at < m.end() {
		data, err := l.readAt(at, 1000)
		require.NoError(t, err)
		require.NoError(t, eachRecord(data, func(int, *record) error { return nil }))
		at += uint64(len(data))
	}
}

// TestAgreement compares histories of owners that came one after the other, some without their log, with brute force.
func TestAgreement(t *testing.T) {
	terms := func(log []uint64) (starts []termStart) {
		for i, term := range log {
			if i == 0 || term != log[i-1] {
				starts = append(starts, termStart{term, uint64(i)})
			}
		}
		return starts
	}
	random := rand.New(rand.NewPCG(5, 5))
	for range 2000 {
		var keeper []uint64 // each entry is the term that wrote it: with its place, that says what it is
		owners := [][]uint64{nil, nil, nil}
		for term := uint64(1); term < 8; term++ {
			i := random.IntN(len(owners))
			same := 0
			for same < min(len(keeper), len(owners[i])) && keeper[same] == owners[i][same] {
				same++
			}
			got, ok := agreement(terms(owners[i]), uint64(len(owners[i])), terms(keeper), uint64(len(keeper)))
			require.Equal(t, uint64(same), got, "%v and %v", owners[i], keeper)
			require.Equal(t, same > 0, ok)
			if len(keeper) > same {
				owners[i] = append([]uint64(nil), keeper...)
			} else {
				keeper = append([]uint64(nil), owners[i]...)
			}
			for range random.IntN(4) {
				owners[i] = append(owners[i], term)
			}
			keeper = append(keeper, owners[i][len(keeper):len(keeper)+random.IntN(1+len(owners[i])-len(keeper))]...)
		}
	}
}

func TestCopyRefuses(t *testing.T) {
	m := &logModel{}
	c, err := openCopy(filepath.Join(t.TempDir(), "copy"), testLogOptions())
	require.NoError(t, err)
	defer func() { require.NoError(t, c.log.close()) }()
	state, err := c.fence(3)
	require.NoError(t, err)
	require.EqualValues(t, 3, state.Fence)
	for _, term := range []uint64{2, 3} {
		_, err = c.fence(term)
		require.ErrorIs(t, err, errStale)
	}
	first := m.add(m.next(3, 2))
	_, err = c.append(2, 0, segmentHead{}, first)
	require.ErrorIs(t, err, errStale, "a replaced owner")
	_, err = c.append(3, 5, segmentHead{}, first)
	require.ErrorIs(t, err, errStale, "another place")
	_, err = c.append(3, 0, segmentHead{}, first[:len(first)-1])
	require.ErrorIs(t, err, ErrDiverged)
	_, err = c.append(3, 0, segmentHead{}, first)
	require.NoError(t, err)
	state, err = c.append(3, 0, segmentHead{}, first)
	require.ErrorIs(t, err, errStale, "it came again")
	require.Equal(t, m.end(), state.End)
	bad := m.next(3, 1)
	bad.First++
	_, err = c.append(3, m.end(), segmentHead{}, appendRecord(nil, &bad))
	require.ErrorIs(t, err, ErrDiverged)
	bad = m.next(2, 1)
	_, err = c.append(3, m.end(), segmentHead{}, appendRecord(nil, &bad))
	require.ErrorIs(t, err, ErrDiverged)
	_, err = c.append(3, m.end(), segmentHead{}, m.add(m.next(3, 1)))
	require.NoError(t, err)
	require.NoError(t, c.log.close())
	c, err = openCopy(c.log.dir, testLogOptions())
	require.NoError(t, err)
	require.EqualValues(t, 3, c.mu.fence, "the fence is kept")
	m.check(t, c.log)
}

func FuzzRecord(f *testing.F) {
	m := &logModel{}
	f.Add(m.add(m.next(1, 3)))
	f.Add(appendRecord(nil, &record{Kind: kindEnd}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r, again record
		n, err := decodeRecord(data, &r)
		if err != nil {
			require.ErrorIs(t, err, errTorn)
			return
		}
		require.LessOrEqual(t, n, len(data))
		_, err = decodeRecord(appendRecord(nil, &r), &again)
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}
