package cluster

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Jobs beside one another are under way at once: each of these waits for all.
func TestDiskJobsRunBesideOneAnother(t *testing.T) {
	q := newDiskQueue()
	defer q.close()
	var all sync.WaitGroup
	all.Add(besides)
	for range besides {
		q.beside(func() {
			all.Done()
			all.Wait()
		})
	}
	all.Wait()
}

// A job that runs alone has all earlier ones behind it and all later ones before it.
func TestDiskJobsAloneKeepTheOrder(t *testing.T) {
	q := newDiskQueue()
	var running, ended atomic.Int64
	job := func(alone bool, before int64) func() {
		return func() {
			if n := running.Add(1); alone && n != 1 {
				t.Error("a job that runs alone is not")
			}
			if alone && ended.Load() != before {
				t.Errorf("%d jobs have ended before the one after %d", ended.Load(), before)
			}
			ended.Add(1)
			running.Add(-1)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	done := make(chan struct{})
	for i := range int64(2000) {
		if rng.IntN(4) == 0 {
			q.alone(job(true, i))
		} else {
			q.beside(job(false, i))
		}
	}
	q.alone(func() { close(done) })
	<-done
	require.EqualValues(t, 2000, ended.Load())
	q.close()
	q.alone(func() { t.Error("a job runs after the end") })
	q.beside(func() { t.Error("a job runs after the end") })
}

// Who closes the queue waits for the jobs that are under way.
func TestClosingADiskQueueWaits(t *testing.T) {
	q := newDiskQueue()
	began, end := make(chan struct{}), make(chan struct{})
	var over atomic.Bool
	q.beside(func() {
		close(began)
		<-end
		over.Store(true)
	})
	<-began
	closed := make(chan bool)
	go func() {
		q.close()
		closed <- over.Load()
	}()
	close(end)
	require.True(t, <-closed)
}
