package verify

import (
	"encoding/binary"
)

// gapRecord is a value in the second pass of CheckRunning, or the header of a key. Encoded, records of a key sort as the header,
// then the values by rank, then by place.
type gapRecord struct {
	header   bool
	rank     uint64 // of a header: the ranks below were seen in the first pass
	expected uint64 // only of a header
	at       place  // of a header: the key's last record
	behind   bool   // a higher rank stood before it in its file
}

func (g gapRecord) append(dst []byte) []byte {
	kind := byte(1)
	if g.header {
		kind = 0
	}
	dst = binary.BigEndian.AppendUint64(append(dst, kind), g.rank)
	dst = binary.BigEndian.AppendUint32(dst, uint32(g.at.file))
	dst = binary.BigEndian.AppendUint64(dst, uint64(g.at.line))
	if g.header {
		return binary.BigEndian.AppendUint64(dst, g.expected)
	}
	if g.behind {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func readGapRecord(b []byte) gapRecord {
	g := gapRecord{
		header: b[0] == 0,
		rank:   binary.BigEndian.Uint64(b[1:]),
		at: place{
			side: sideOutput,
			file: int(binary.BigEndian.Uint32(b[9:])),
			line: int64(binary.BigEndian.Uint64(b[13:])),
		},
	}
	if g.header {
		g.expected = binary.BigEndian.Uint64(b[21:])
	} else {
		g.behind = b[21] == 1
	}
	return g
}

// gapGroup is the state of one key in the second pass.
type gapGroup struct {
	key    []byte
	header gapRecord
	any    bool
	prefix uint64 // seen in the first pass
	next   uint64 // one more than the highest rank so far
}

// valued takes one record of the second pass.
func (c *runningCheck) valued(r Record) error {
	if err := c.m.tick(); err != nil {
		return err
	}
	rec, g := readGapRecord(r.Value), &c.gaps
	if r.First {
		c.finishGaps()
		*g = gapGroup{key: append(g.key[:0], r.Key...), header: rec, any: true, prefix: rec.rank, next: rec.rank}
		if c.expecting() && rec.rank > rec.expected {
			c.surplus.add(int64(rec.rank-rec.expected), rec.at,
				c.offender(g.key, rec.rank-1, rec.at, "beyond the expected "+times(int64(rec.expected))))
		}
		return nil
	}
	expected := g.header.expected
	switch {
	case rec.rank < g.next:
		c.addDuplicate(g.key, expected, rec.rank, rec.at)
		return nil
	case c.expecting() && rec.rank >= expected:
		c.gap(g.next, min(rec.rank, expected), rec.at)
		c.surplus.add(1, rec.at, c.offender(g.key, rec.rank, rec.at, "beyond the expected "+times(int64(expected))))
	default:
		c.gap(g.next, rec.rank, rec.at)
		if rec.behind {
			c.outOfOrder.add(1, rec.at, c.offender(g.key, rec.rank, rec.at, "stands behind a later value"))
		}
	}
	g.next = rec.rank + 1
	return nil
}

func (c *runningCheck) gap(from, to uint64, at place) {
	if from < to {
		c.addMissing(c.gaps.key, from, to, at, true)
	}
}

// finishGaps ends a key in the second pass.
func (c *runningCheck) finishGaps() {
	if g := &c.gaps; g.any && c.expecting() {
		c.gap(g.next, g.header.expected, g.header.at)
	}
}
