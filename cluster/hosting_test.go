package cluster

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// fraction is a frozen table: what one epoch changed, or all there was.
type fraction struct {
	name  string
	whole bool
}

func (f fraction) Table() string { return f.name }

func (f fraction) Whole() bool { return f.whole }

func (f fraction) Entries(func(key, value []byte, deleted bool) error) error { return nil }

// An image has what changed since the checkpoint that it is relative to, or all there is, if that is what changed in one of the epochs since.
func TestWhatAnImageConsistsOf(t *testing.T) {
	h := &hosted{w: &Worker{}}
	takes := func(e determinant.Epoch, whole bool) string {
		frozen := []operator.Frozen{fraction{fmt.Sprint(e), true}, fraction{fmt.Sprint(e), whole}}
		tables, full := h.changed(e, frozen)
		var names []string
		for _, table := range tables {
			names = append(names, table.Table())
		}
		return fmt.Sprint(slices.Compact(names), " full: ", full)
	}
	completed := func(e determinant.Epoch) {
		h.frozen = slices.DeleteFunc(h.frozen, func(f frozenEpoch) bool { return f.epoch <= e })
	}
	require.Equal(t, "[1] full: false", takes(1, false))
	require.Equal(t, "[1 2] full: false", takes(2, false), "1 was abandoned")
	require.Equal(t, "[3] full: true", takes(3, true))
	require.Equal(t, "[3 4] full: true", takes(4, false), "3 was abandoned")
	completed(3)
	require.Equal(t, "[4 5] full: false", takes(5, false))
	completed(5)
	require.Equal(t, "[6] full: true", takes(6, true))
	completed(6)
	require.Equal(t, "[7] full: false", takes(7, false))
}
