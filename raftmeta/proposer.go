package raftmeta

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

const (
	// MaxPending bounds the proposals that wait for an answer, and maxPendingBytes their commands.
	MaxPending      = 1 << 16
	maxPendingBytes = 256 << 20
	// MaxCommand bounds a command, in bytes.
	MaxCommand = 4 << 20
	// maxInFlight bounds the entries that are on their way: one that is written while another crosses the network. Proposals
	// that come meanwhile share the next one.
	maxInFlight = 2
)

// proposal is a command, or a barrier, and who wants to know.
type proposal struct {
	command []byte
	barrier bool
	done    func(error)
}

// flight is the proposals that share an entry, or that were turned down together.
type flight struct {
	proposals []proposal
	entry     raft.ApplyFuture // nil: turned down
}

// proposer gathers proposals and has two goroutines: one that makes entries of them, one that waits for those in turn and
// answers. So the answers come in the order of the proposals, and a slow follower or disk holds nobody up who proposes.
type proposer struct {
	raft    *raft.Raft
	wake    chan struct{} // holds one: the queue is no longer empty, or closed
	slots   chan struct{} // holds one for each entry that is on its way
	flights chan flight
	done    chan struct{} // closed when the last answer was given

	mu struct {
		sync.Mutex
		queue  []proposal
		closed bool
		count  int // of the proposals without an answer
		bytes  int // of their commands
	}
}

func newProposer(r *raft.Raft) *proposer {
	p := &proposer{
		raft:    r,
		wake:    make(chan struct{}, 1),
		slots:   make(chan struct{}, maxInFlight),
		flights: make(chan flight, maxInFlight+1), // and those turned down
		done:    make(chan struct{}),
	}
	go p.send()
	go p.answer()
	return p
}

// propose queues a proposal, or says why not; then done was not called.
func (p *proposer) propose(x proposal) error {
	if len(x.command) > MaxCommand {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(x.command), MaxCommand)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return ErrNotLeader
	}
	if p.mu.count == MaxPending || p.mu.bytes+len(x.command) > maxPendingBytes {
		return fmt.Errorf("%w: %d of %d bytes", ErrBusy, p.mu.count, p.mu.bytes)
	}
	p.mu.count++
	p.mu.bytes += len(x.command)
	p.mu.queue = append(p.mu.queue, x)
	p.awaken()
	return nil
}

func (p *proposer) awaken() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// close turns down what is in the queue and waits until every proposal has its answer. Raft must still run: it answers
// for the entries.
func (p *proposer) close() {
	p.mu.Lock()
	p.mu.closed = true
	p.mu.Unlock()
	p.awaken()
	<-p.done
}

// pending is the number of proposals without an answer.
func (p *proposer) pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.count
}

// send makes entries of what is in the queue.
func (p *proposer) send() {
	defer close(p.flights)
	for range p.wake {
		for {
			p.slots <- struct{}{}
			batch, closed := p.take()
			if closed {
				p.flights <- flight{proposals: batch}
				return
			}
			if len(batch) == 0 {
				<-p.slots
				break
			}
			commands := make([][]byte, 0, len(batch))
			size := 0
			for _, x := range batch {
				if !x.barrier {
					commands = append(commands, x.command)
					size += len(x.command) + 4
				}
			}
			entry := raft.Log{Data: appendBatch(make([]byte, 0, size+4), commands)}
			p.flights <- flight{batch, p.raft.ApplyLog(entry, 0)}
		}
	}
}

// take removes a batch from the queue; all of it, if the proposer was closed.
func (p *proposer) take() (batch []proposal, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, size := 0, 0
	for n < len(p.mu.queue) && !p.mu.closed {
		size += len(p.mu.queue[n].command)
		if n > 0 && (size > batchBytes || n == batchCommands) {
			break
		}
		n++
	}
	if n == len(p.mu.queue) || p.mu.closed {
		batch, p.mu.queue = p.mu.queue, nil
		return batch, p.mu.closed
	}
	batch = p.mu.queue[:n:n]
	p.mu.queue = p.mu.queue[n:]
	return batch, false
}

// answer tells each proposal what became of it.
func (p *proposer) answer() {
	defer close(p.done)
	for f := range p.flights {
		err := ErrNotLeader
		if f.entry != nil {
			err = outcome(f.entry)
			<-p.slots
		}
		for _, x := range f.proposals {
			p.mu.Lock()
			p.mu.count--
			p.mu.bytes -= len(x.command)
			p.mu.Unlock()
			x.done(err)
		}
	}
}

// outcome waits for an entry and says what became of it.
func outcome(entry raft.ApplyFuture) error {
	switch err := entry.Error(); {
	case err == nil:
		if failed, _ := entry.Response().(error); failed != nil {
			return fmt.Errorf("%w: %w", ErrLost, failed)
		}
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return ErrNotLeader
	default:
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
}
