package task

import (
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// Split is one split of a source task.
type Split struct {
	Identity string
	From     determinant.Epoch // the first epoch in which it is read
}

// Splits are the splits of a source task, as the job's metadata have them.
type Splits struct {
	List []Split // Invariant: in the order in which they are read first; From never falls
	// Final is the first epoch in which the task may end when it has read them all; 0: it waits for more.
	Final determinant.Epoch
	Grows bool // splits may come, or might once
}

// FixedSplits are splits that are all there from the start.
func FixedSplits(identities ...string) Splits {
	s := Splits{Final: 1}
	for _, identity := range identities {
		s.List = append(s.List, Split{Identity: identity, From: 1})
	}
	return s
}

// Grow gives a source task the splits that its metadata have by now. Any goroutine; the task is woken by whoever calls.
//
// Invariant: what the task had stays, and stays where it is: a choice names a split by its number.
func (t *Task) Grow(s Splits) {
	have := t.splits.Load()
	for i := range have.List {
		if i >= len(s.List) || s.List[i].Identity != have.List[i].Identity {
			panic(fmt.Sprintf("task: assertion failed: %s had splits %v and gets %v", t, have.List, s.List))
		}
	}
	t.splits.Store(&s)
}

// nextSplit is the split that the task has to add before it reads on, if there is one.
//
// Invariant: in an epoch no record is read before all splits that begin with the epoch, or before it, are added, and none that
// begins later is: what can be read in an epoch follows from the metadata, whoever reads it, and how often.
func (t *Task) nextSplit() (d determinant.Determinant, ok bool) {
	added, list := t.source.Splits(), t.splits.Load().List
	if added >= len(list) || list[added].From > t.epoch {
		return d, false
	}
	return determinant.Determinant{Kind: determinant.KindSplit, Split: uint32(added), Bytes: []byte(list[added].Identity)}, true
}

// addSplit adds a split that was chosen, now or by a former life.
func (t *Task) addSplit(d *determinant.Determinant) error {
	added, list := t.source.Splits(), t.splits.Load().List
	if added >= len(list) || list[added].Identity != string(d.Bytes) || list[added].From > t.epoch {
		return t.diverged("split %d, %q, of %v in epoch %d", added, d.Bytes, list, t.epoch)
	}
	return t.source.Add(string(d.Bytes))
}

// mayEnd tells whether the task has no split to come.
func (t *Task) mayEnd() bool {
	final := t.splits.Load().Final
	return final > 0 && final <= t.epoch
}

// tellIdle tells the chain whether the task of a source that grows has no split to read: then it holds back nobody's watermark. It is
// called where splits come and go, and at the end of each epoch, so what is said where is a function of the steps.
func (t *Task) tellIdle() error {
	if t.source == nil || !t.splits.Load().Grows || t.ending {
		return nil
	}
	idle := t.source.Open() == 0
	if idle == t.idle {
		return nil
	}
	t.idle = idle
	return t.chain.Idle(idle)
}
