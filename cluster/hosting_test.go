package cluster

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// fraction is a frozen table: what one epoch changed.
type fraction string

func (f fraction) Table() string { return string(f) }

func (f fraction) Whole() bool { return false }

func (f fraction) Entries(func(key, value []byte, deleted bool) error) error { return nil }

// An image has what changed since the checkpoint that it is relative to, or all there is, if all was written in the epochs since; otherwise it says
// since when all was.
func TestWhatAnImageConsistsOf(t *testing.T) {
	h := &hosted{w: &Worker{}}
	takes := func(e determinant.Epoch, all bool, since determinant.Epoch) string {
		s := &task.Snapshot{Freezes: operator.Freezes{Frozen: []operator.Frozen{fraction(fmt.Sprint(e)), fraction(fmt.Sprint(e))}, All: all, Since: since}}
		s.Meta.Epoch, s.Meta.Base = e, h.base
		tables, full := h.changed(s)
		var names []string
		for _, table := range tables {
			names = append(names, table.Table())
		}
		require.True(t, s.Meta.Since == 0 || !full && s.Meta.Since < h.base)
		return fmt.Sprint(slices.Compact(names), " full: ", full, " since: ", s.Meta.Since)
	}
	completed := func(e determinant.Epoch) {
		h.base = e
		h.frozen = slices.DeleteFunc(h.frozen, func(f frozenEpoch) bool { return f.epoch <= e })
	}
	require.Equal(t, "[1] full: false since: 0", takes(1, false, 0))
	require.Equal(t, "[1 2] full: false since: 0", takes(2, false, 0), "1 was abandoned")
	require.Equal(t, "[3] full: true since: 0", takes(3, true, 2))
	require.Equal(t, "[3 4] full: true since: 0", takes(4, false, 0), "3 was abandoned")
	completed(3)
	require.Equal(t, "[4 5] full: false since: 0", takes(5, false, 0))
	completed(5)
	require.Equal(t, "[7] full: true since: 0", takes(7, true, 6))
	completed(7)
	require.Equal(t, "[8] full: false since: 6", takes(8, true, 6))
	completed(8)
	require.Equal(t, "[9] full: false since: 7", takes(9, true, 7))
	require.Equal(t, "[9 10] full: true since: 0", takes(10, true, 8), "all since the base")
	require.Equal(t, "[10 11] full: true since: 0", takes(11, true, 9))
	completed(11)
	require.Equal(t, "[12] full: false since: 10", takes(12, true, 10))
}
