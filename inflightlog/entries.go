package inflightlog

import (
	"slices"
	"sort"

	"github.com/understudy-stream/understudy/determinant"
)

// entry is one sealed batch that a log holds.
type entry struct {
	// batch has no payload if it is on disk. Once handed out it is never written to: a spilled batch gets a new header.
	batch   *Batch
	bytes   int    // of payload
	at      uint64 // bytes sealed before it since the log was made
	retain  bool
	charged int64    // bytes of memory taken for it
	segment *segment // where it is on disk, else nil
	offset  int64
}

// entries are the batches that a log holds, oldest first: a part on disk followed by a part in memory. Both are queues.
//
// Invariant: each entry starts where the one before it ended.
type entries struct {
	disk, memory []entry
}

func (q *entries) len() int { return len(q.disk) + len(q.memory) }

// get gives the i-th oldest. The pointer is good until the queue changes.
func (q *entries) get(i int) *entry {
	if i < len(q.disk) {
		return &q.disk[i]
	}
	return &q.memory[i-len(q.disk)]
}

// find gives the index of the entry that holds seq, or len if all end before it.
func (q *entries) find(seq determinant.Seq) int {
	return sort.Search(q.len(), func(i int) bool { return q.get(i).batch.End.Next > seq })
}

// push adds the newest, which is in memory.
func (q *entries) push(e entry) { q.memory = append(q.memory, e) }

// pop takes the oldest off.
func (q *entries) pop() entry {
	from := &q.disk
	if len(q.disk) == 0 {
		from = &q.memory
	}
	e := (*from)[0]
	(*from)[0] = entry{} // so that the array does not hold on to the payload
	*from = (*from)[1:]
	return e
}

// spill puts e, which is on disk, in the place of the n oldest that are in memory.
func (q *entries) spill(n int, e entry) {
	clear(q.memory[:n])
	q.memory = q.memory[n:]
	q.disk = append(q.disk, e)
}

// newest gives the newest entry, or nil. The pointer is good until the queue changes.
func (q *entries) newest() *entry {
	if q.len() == 0 {
		return nil
	}
	return q.get(q.len() - 1)
}

// onDisk copies the entries on disk from index i on for as long as keep says so.
func (q *entries) onDisk(i int, keep func(e *entry) bool) []entry {
	n := i
	for n < len(q.disk) && keep(&q.disk[n]) {
		n++
	}
	return slices.Clone(q.disk[i:n])
}
