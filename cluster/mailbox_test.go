package cluster

import (
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain checks that no test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAMailboxRunsJobsInOrder(t *testing.T) {
	b := newMailbox()
	var got []int
	done := make(chan struct{})
	for i := range 1000 {
		b.post(func() { got = append(got, i) })
	}
	b.post(func() { close(done) })
	<-done
	b.close()
	require.Len(t, got, 1000)
	for i, v := range got {
		require.Equal(t, i, v)
	}
}

// Those who post may hold locks that a job needs, and may be a job.
func TestPostingToAMailboxNeverWaits(t *testing.T) {
	b := newMailbox()
	var mu sync.Mutex
	var all sync.WaitGroup
	all.Add(100)
	mu.Lock()
	for range 50 {
		b.post(func() {
			mu.Lock()
			defer mu.Unlock()
			all.Done()
			b.post(all.Done)
		})
	}
	mu.Unlock()
	all.Wait()
	b.close()
}

// What a closed mailbox has left is dropped, also what it had already looked at; the job under way is waited for.
func TestAClosedMailboxDropsWhatIsLeft(t *testing.T) {
	b := newMailbox()
	running, release, closing := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ended, more := false, 0
	var mu sync.Mutex
	mu.Lock()
	b.post(func() { mu.Lock(); defer mu.Unlock() }) // holds the mailbox up, so that the next two come together
	b.post(func() {
		close(running)
		<-release
		ended = true
	})
	b.post(func() { more++ })
	mu.Unlock()
	<-running
	b.post(func() { more++ })
	go func() {
		b.close()
		close(closing)
	}()
	for !b.isClosed() {
		runtime.Gosched()
	}
	close(release)
	<-closing
	require.True(t, ended)
	require.Zero(t, more)
	b.post(func() { more++ })
	b.close()
	require.Zero(t, more, "nothing is taken any more")
}
