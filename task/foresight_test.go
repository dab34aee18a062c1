package task

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
)

// foretold is a chain that checks what it is told of the records that come next.
type foretold struct {
	operator.Chain
	t                  *testing.T
	next               [][]byte
	ran, known, wasted int
}

func (f *foretold) Foresight(int, bool) int { return 16 }

func (f *foretold) Foresee(_ int, payloads [][]byte) {
	f.wasted += len(f.next)
	f.next = slices.Clone(payloads)
	f.Chain.Foresee(0, payloads)
}

func (f *foretold) Record(in int, payload []byte, ts int64, hasTime bool) error {
	f.ran++
	if len(f.next) > 0 {
		require.Same(f.t, &f.next[0][0], &payload[0], "the record that was foretold is the one that comes")
		f.next = f.next[1:]
		f.known++
	}
	return f.Chain.Record(in, payload, ts, hasTime)
}

// fed runs 400 records through a vertex, in batches of 1 to 40 that also have watermarks.
func fed(t *testing.T, v vertex) *foretold {
	f := &foretold{t: t}
	r := newRig(t, v, func(c *Config) {
		made := c.New
		c.New = func(rt operator.Runtime) (operator.Chain, error) {
			var err error
			f.Chain, err = made(rt)
			return f, err
		}
	})
	for at := uint64(0); at < 400; {
		var batch []inflightlog.Element
		for range min(1+at%40, 400-at) {
			batch = append(batch, record(at))
			if at++; at%7 == 0 {
				batch = append(batch, watermark(int64(at)))
			}
		}
		r.feed(0, batch...)
		r.run()
		require.Empty(t, f.next, "between steps nothing is foretold")
	}
	require.Equal(t, 400, f.ran)
	return f
}

func TestChainsAreToldWhatComes(t *testing.T) {
	f := fed(t, mapVertex(t, 1, func(_ operator.Context, v uint64, emit func(uint64)) error { emit(v); return nil }))
	require.Greater(t, f.known, 300)
	require.Zero(t, f.wasted)
}

// Where each record fills a batch, so that the task pauses behind it, little is foreseen for nothing.
func TestForesightStopsWhereItIsForNothing(t *testing.T) {
	f := fed(t, bulky(t, 1))
	require.LessOrEqual(t, f.wasted, f.ran, "16 at a time would be ten times as much")
}
