package cluster

import (
	"sync"
	"time"

	"github.com/understudy-stream/understudy/determinant"
)

// localWorker is a worker among others in one process: a driver, and a goroutine per link. It implements Environment.
type localWorker struct {
	*driver
	local *Local
	dir   int // which state directory it has

	links struct {
		sync.Mutex
		wake map[determinant.WorkerID]chan struct{}
	}
}

// WakeLink sends what there is for a peer, on a goroutine of its own.
func (lw *localWorker) WakeLink(peer determinant.WorkerID) {
	lw.links.Lock()
	wake := lw.links.wake[peer]
	if wake == nil {
		wake = make(chan struct{}, 1)
		lw.links.wake[peer] = wake
		lw.spawn(func() { lw.runLink(peer, wake) })
	}
	lw.links.Unlock()
	notify(wake)
}

func (lw *localWorker) runLink(peer determinant.WorkerID, wake chan struct{}) {
	var buf []byte // of deltas
	for {
		select {
		case <-wake:
		case <-lw.ctx.Done():
			return
		}
		for lw.ctx.Err() == nil {
			m := lw.worker.Write(peer, buf)
			if m == nil {
				break
			}
			if to := lw.local.worker(peer); to != nil {
				to.worker.Receive(m)
			}
			if len(m.Delta) > 0 {
				buf = reusable(m.Delta)
			}
		}
	}
}

// Tell delivers a control message.
func (lw *localWorker) Tell(to determinant.WorkerID, m Control) {
	if peer := lw.local.worker(to); peer != nil {
		peer.control.post(func() { peer.worker.Control(m) })
	}
}

// Report delivers an event to the coordinator.
func (lw *localWorker) Report(r Report) { lw.local.report(lw.worker.ID(), r) }

// Observe counts what happens.
func (lw *localWorker) Observe(o Observation) { lw.local.stats.observe(o, time.Now()) }
