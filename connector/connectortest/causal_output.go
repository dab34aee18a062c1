package connectortest

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
)

const (
	epochRecords  = 5                // in an epoch of most outputs
	epochElements = epochRecords + 1 // and the barrier
	logTasks      = 3                // tasks whose determinants the output depends on: the sink's own and two upstream
	upstream      = 2                // the task that is ahead of the sink
	aheadBytes    = 2 * 8            // so far
)

// logBytes is how many bytes of determinants each task logs per element.
var logBytes = [logTasks]int{3, 5, 8}

// storeOrder is the order of logs in a delta: downstream first.
var storeOrder = []determinant.TaskID{0, 1, 2}

// offsets is a position in the log of each task.
type offsets [logTasks]determinant.LogOffset

// output is what a job puts out by one sink task in an execution without failures: the elements of the external channel, and how
// far the logs are on which they depend. A rollback makes other choices from a checkpoint on.
type output struct {
	record   func(n, g int) []byte
	epoch    determinant.Seq      // elements in each, the barrier included
	choices  int                  // how many times other choices were made
	elements [][]byte             // nil for the barrier that ends an epoch
	cursors  []determinant.Cursor // before each element, and at the end
	needs    []offsets            // needs[s] must be stored before the first s elements are seen
	logs     *causal.Store
	random   *rand.ChaCha8 // of determinants
}

func newOutput(record func(n, g int) []byte) *output {
	if record == nil {
		record = jsonRecord
	}
	o := &output{
		record: record, epoch: epochElements, cursors: []determinant.Cursor{{Epoch: 1}}, needs: make([]offsets, 1),
		logs: causal.NewStore(logTasks), random: rand.NewChaCha8([32]byte{}),
	}
	o.log(upstream, aheadBytes)
	return o
}

// border is the position after the barrier of epoch e.
func (o *output) border(e determinant.Epoch) determinant.Seq { return determinant.Seq(e) * o.epoch }

// epochAt is the epoch in which element s is.
func (o *output) epochAt(s determinant.Seq) determinant.Epoch {
	return determinant.Epoch(s/o.epoch) + 1
}

// upTo is n elements after s, or the end of its epoch if that comes first: no write goes beyond.
func (o *output) upTo(s, n determinant.Seq) determinant.Seq { return min(s+n, o.border(o.epochAt(s))) }

// log adds determinants to a task's log.
func (o *output) log(t determinant.TaskID, n int) {
	p := make([]byte, n)
	_, _ = o.random.Read(p) // it never fails
	o.logs.Log(t).Append(p)
}

// produce makes elements until there are n.
func (o *output) produce(n determinant.Seq) {
	for s := determinant.Seq(len(o.elements)); s < n; s++ {
		at := o.cursors[s]
		at.Next++
		var record []byte
		if at.Next%o.epoch == 0 {
			at = determinant.Cursor{Next: at.Next, Epoch: at.Epoch + 1}
		} else {
			record = o.record(int(s)-int(s/o.epoch), o.choices)
			at.Bytes += uint64(len(record)) + 2
			at.CRC = crc32.Update(at.CRC, crc32.MakeTable(crc32.Castagnoli), record)
		}
		for t, n := range logBytes {
			o.log(determinant.TaskID(t), n)
		}
		o.elements, o.cursors = append(o.elements, record), append(o.cursors, at)
		o.needs = append(o.needs, o.logged())
	}
}

// logged is where the logs are, but for what the task ahead has logged for later elements.
func (o *output) logged() (at offsets) {
	copy(at[:], o.logs.Ends())
	at[upstream] -= aheadBytes
	return at
}

// records gives the records among the elements from..to.
func (o *output) records(from, to determinant.Seq) (records []string) {
	for _, e := range o.elements[from:to] {
		if e != nil {
			records = append(records, string(e))
		}
	}
	return records
}

// after is the least position before which there are n records.
func (o *output) after(n int) determinant.Seq {
	if n == 0 {
		return 0
	}
	return determinant.Seq(n + (n-1)/int(o.epoch-1))
}

// commit lets go of what a committed checkpoint covers.
func (o *output) commit(e determinant.Epoch) {
	at := o.needs[o.border(e)]
	o.logs.Truncate(at[:])
}

// rollBack goes back to the end of epoch e. What comes from there on is other output.
func (o *output) rollBack(e determinant.Epoch) {
	s := o.border(e)
	o.elements, o.cursors, o.needs = o.elements[:s], o.cursors[:s+1], o.needs[:s+1]
	o.logs.Cut(o.needs[s][:])
	o.choices++
	o.log(upstream, aheadBytes)
}

// anew goes back to the end of epoch e like a life that has lost its predecessor's determinants and makes other choices.
func (o *output) anew(e determinant.Epoch) error {
	o.rollBack(e)
	needs := &o.needs[o.border(e)]
	for t := range needs {
		base, ok := needs[t].Anew(1)
		if !ok {
			return fmt.Errorf("connectortest: the log of task %d has no offsets left", t)
		}
		o.logs.Reset(determinant.TaskID(t), base)
		needs[t] = base
	}
	o.log(upstream, aheadBytes)
	return nil
}

// covers checks stored deltas: they are those of this execution without a gap, and hold all that the first s elements depend on
// and no checkpoint covers. It gives how far each log is stored.
func (o *output) covers(deltas [][]byte, s determinant.Seq) (stored offsets, err error) {
	merged := causal.NewStore(logTasks)
	for i, delta := range deltas {
		err := causal.DecodeDelta(delta, func(t determinant.TaskID, from determinant.LogOffset, covered bool, p []byte) error {
			if t >= logTasks {
				return fmt.Errorf("there is no task %d", t)
			}
			l := merged.Log(t)
			return l.Merge(from, p, covered || l.Bytes() == 0)
		})
		if err != nil {
			return stored, fmt.Errorf("stored delta %d of %d: %w", i, len(deltas), err)
		}
	}
	for t := range determinant.TaskID(logTasks) {
		if err := o.coversLog(merged.Log(t), t, o.needs[s][t]); err != nil {
			return stored, err
		}
		stored[t] = merged.Log(t).End()
	}
	return stored, nil
}

// coversLog checks what is stored of one log.
func (o *output) coversLog(stored *causal.Log, t determinant.TaskID, need determinant.LogOffset) error {
	log := o.logs.Log(t)
	from, end := log.Base(), stored.End()
	if need > from && (stored.Bytes() == 0 || stored.Base() > from || end < need) {
		return fmt.Errorf("determinants of task %d are stored for offsets %d to %d, what can be seen depends on %d to %d",
			t, stored.Base(), end, from, need)
	}
	if stored.Bytes() == 0 || end <= from {
		return nil
	}
	if end > log.End() {
		return fmt.Errorf("determinants of task %d are stored up to offset %d, the task has logged up to %d", t, end, log.End())
	}
	from = max(from, stored.Base())
	got, err := stored.Read(nil, from, end)
	if err != nil {
		return err
	}
	want, err := log.Read(nil, from, end)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("what is stored of the log of task %d, offsets %d to %d, is not what the task has logged", t, from, end)
	}
	return nil
}
