package determinant

import (
	"fmt"
	"math"
)

// TaskID is the dense index of a task in its job's plan: vertices in plan order, and the parallel instances of each in
// order.
type TaskID uint32

// ChannelID is the dense index of a channel, a directed link between two tasks, in its job's plan.
type ChannelID uint32

// WorkerID names one start of a process that hosts tasks. A restarted process is a new worker; ids are never used twice.
type WorkerID uint64

// Epoch numbers what a task does between two barriers: epoch e ends with barrier e, and checkpoint e is the state there.
// The first epoch is 1; checkpoint 0 is the empty state that a job starts from.
type Epoch uint64

// Seq counts the elements of one channel from the job's start.
type Seq uint64

// Incarnation numbers the lives of one task. The ledger hands them out, always rising; the first is 1.
type Incarnation uint64

// LogOffset is a position in a task's determinant log, in bytes from the job's start. A life of the task that begins without
// its predecessor's determinants begins another history, whose offsets are beyond all that any former life can have used:
// see Anew.
type LogOffset uint64

// historyGap is how far apart two histories of a task begin that go on from the same checkpoint. What a life logs after a
// checkpoint is held in memory until the next one, so it never fills the gap.
const historyGap LogOffset = 1 << 40

// Anew is where the log of a life begins that goes on from offset o, that of a checkpoint, without the determinants of the
// lives since: lives says how many lives after the checkpoint's own it is. It is false when the offsets are used up.
func (o LogOffset) Anew(lives uint64) (LogOffset, bool) {
	if lives > uint64((math.MaxUint64-o)/historyGap) {
		return o, false
	}
	return o + LogOffset(lives)*historyGap, true
}

// Beyond tells whether o belongs to a later history than p.
func (o LogOffset) Beyond(p LogOffset) bool { return o > p && o-p > historyGap/2 }

// Bytes is how many bytes of determinants lie between the job's start and o in the history that o belongs to.
func (o LogOffset) Bytes() uint64 { return uint64(o % historyGap) }

// Round numbers the decisions about failures. Answers that count come from one round.
type Round uint64

// Generation numbers the global rollbacks of a job. Every message between workers carries it.
type Generation uint64

// Cursor is a position in a channel with what it takes to prove that two sides mean the same bytes: the next sequence
// number, the epoch it falls in, and the length and rolling CRC-32C of the channel's element bytes since that epoch began.
type Cursor struct {
	Next  Seq
	Epoch Epoch
	Bytes uint64
	CRC   uint32
}

// String gives the cursor in the form seq@epoch(bytes,crc).
func (c Cursor) String() string {
	return fmt.Sprintf("%d@%d(%d,%08x)", c.Next, c.Epoch, c.Bytes, c.CRC)
}

// Mode says what an epoch records and so what a failure in it costs.
type Mode uint8

// The modes. None logs nothing at all and exists for measuring overhead; a job in it does not survive a failure.
const (
	ExactlyOnce Mode = iota
	AtLeastOnce
	GlobalRollback
	None
)

// String gives the mode's name on the command line.
func (m Mode) String() string {
	switch m {
	case ExactlyOnce:
		return "exactly-once"
	case AtLeastOnce:
		return "at-least-once"
	case GlobalRollback:
		return "global-rollback"
	case None:
		return "none"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// Logs tells whether a task in this mode records determinants.
func (m Mode) Logs() bool { return m == ExactlyOnce }

// Retains tells whether a task in this mode keeps what it sent until the next checkpoint.
func (m Mode) Retains() bool { return m == ExactlyOnce || m == AtLeastOnce }

// ParseMode is the inverse of Mode.String.
func ParseMode(s string) (Mode, error) {
	for m := ExactlyOnce; m <= None; m++ {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("determinant: unknown mode %q: want exactly-once, at-least-once or global-rollback", s)
}

// Depth is a sharing depth: how many hops downstream a determinant is handed on before it counts as safe.
type Depth uint16

// Full shares every determinant with every task downstream.
const Full Depth = math.MaxUint16

// String gives "full" or the number of hops.
func (d Depth) String() string {
	if d == Full {
		return "full"
	}
	return fmt.Sprint(uint16(d))
}
