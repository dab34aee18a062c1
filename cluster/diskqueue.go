package cluster

import "sync"

// besides is how many jobs use the disk at once. Each waits for it twice, and then for a processor: some wait together, but more of them would
// only compute at the same time, just when the barrier's records have to be made up for.
const besides = 4

// diskQueue runs the jobs of a worker's disk in order, except that those which may run beside one another do.
//
// Invariant: a job that runs alone begins when all earlier ones have ended, and ends before any later one begins.
type diskQueue struct {
	order   *mailbox
	slots   chan struct{}
	running sync.WaitGroup // added to, and waited for, by the mailbox's goroutine, until that has ended
}

func newDiskQueue() *diskQueue {
	return &diskQueue{order: newMailbox(), slots: make(chan struct{}, besides)}
}

// alone runs a job after all earlier ones.
func (q *diskQueue) alone(job func()) {
	q.order.post(func() {
		q.running.Wait()
		job()
	})
}

// beside runs a job after all earlier ones that run alone.
func (q *diskQueue) beside(job func()) {
	q.order.post(func() {
		q.slots <- struct{}{}
		q.running.Go(func() {
			defer func() { <-q.slots }()
			job()
		})
	})
}

// close drops what has not begun and waits for the rest. It must not be called from a job.
func (q *diskQueue) close() {
	q.order.close()
	q.running.Wait()
}
