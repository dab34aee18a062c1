package operator

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is frozen goes into every image until a checkpoint is complete, and two images may be made at the same time.
func TestFrozenTimersAreReadByManyAtOnce(t *testing.T) {
	table := newTimerTable("timers")
	const n = 2000
	for i := range n {
		table.queue.Register(int64(n-i), fmt.Sprint("key", i), "tag")
	}
	frozen := table.Freeze()
	var all [4][]string
	var reading sync.WaitGroup
	for i := range all {
		reading.Go(func() {
			_ = frozen.Entries(func(key, value []byte, _ bool) error {
				all[i] = append(all[i], string(key)+string(value))
				return nil
			})
		})
	}
	reading.Wait()
	require.Len(t, all[0], n)
	require.IsIncreasing(t, all[0])
	for i := range all {
		require.Equal(t, all[0], all[i])
	}
}
