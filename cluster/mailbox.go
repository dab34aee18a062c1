package cluster

import "sync"

// mailbox runs jobs one after the other on a goroutine of its own. It holds any number of jobs: those who post must never
// wait, since they may hold locks that a job needs; what bounds it is the protocol, which has a bounded number of messages
// under way per task and checkpoint.
type mailbox struct {
	mu struct {
		sync.Mutex
		jobs   []func()
		closed bool
	}
	wake chan struct{}
	done chan struct{}
}

func newMailbox() *mailbox {
	b := &mailbox{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go b.run()
	return b
}

func (b *mailbox) post(job func()) {
	b.mu.Lock()
	if !b.mu.closed {
		b.mu.jobs = append(b.mu.jobs, job)
	}
	b.mu.Unlock()
	notify(b.wake)
}

func (b *mailbox) run() {
	defer close(b.done)
	for range b.wake {
		for job := b.next(); job != nil; job = b.next() {
			job()
		}
		if b.isClosed() {
			return
		}
	}
}

// next takes the next job; nil if there is none, or none counts any more.
func (b *mailbox) next() func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed || len(b.mu.jobs) == 0 {
		return nil
	}
	job := b.mu.jobs[0]
	b.mu.jobs[0] = nil
	b.mu.jobs = b.mu.jobs[1:]
	return job
}

func (b *mailbox) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.closed
}

// close drops what is left and waits for the job under way. It must not be called from a job.
func (b *mailbox) close() {
	b.mu.Lock()
	b.mu.closed = true
	b.mu.Unlock()
	notify(b.wake)
	<-b.done
}

// notify sets a flag that a goroutine waits for.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// call runs a job after all earlier ones and waits for it; false if the mailbox was closed instead. It must not be called
// from a job.
func (b *mailbox) call(job func()) bool {
	ran := make(chan struct{})
	b.post(func() {
		job()
		close(ran)
	})
	select {
	case <-ran:
		return true
	case <-b.done:
	}
	select {
	case <-ran:
		return true
	default:
		return false
	}
}
