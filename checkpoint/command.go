package checkpoint

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/understudy-stream/understudy/determinant"
)

// Command is a decision about checkpoints that the ledger commits: Start, Complete, Abandon or Switch.
type Command interface {
	fmt.Stringer
	command() byte // the tag of the byte form
	epoch() determinant.Epoch
}

// Start begins checkpoint Epoch. Mode and Depth are those of epoch Epoch+1, which barrier Epoch opens.
type Start struct {
	Epoch determinant.Epoch
	Mode  determinant.Mode
	Depth determinant.Depth
}

// Complete ends checkpoint Epoch: it is now what tasks are restored from.
type Complete struct {
	Epoch determinant.Epoch
	Tasks []TaskState // one per task of the job, sorted by Task
}

// Abandon gives checkpoint Epoch up.
type Abandon struct {
	Epoch determinant.Epoch
}

// Switch asks that epochs have this mode and sharing depth from the next boundary on where that can be. What a barrier opens
// is what its Start says; a Switch only waits for one.
type Switch struct {
	Mode  determinant.Mode
	Depth determinant.Depth
}

// TaskState is what a completed checkpoint has of one task.
type TaskState struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation // whose image it is
	Log         determinant.LogOffset   // where the next epoch starts in the task's determinant log
	Holders     []determinant.WorkerID  // who has the image, sorted
	Ended       bool
	External    *determinant.Cursor // position of the task's external output, if it has one: sinks are cut to it in a rollback
	// Prepared names, by epoch, the transactions of a transactional sink that the checkpoint makes visible, as far as they were
	// not when the task acknowledged it.
	Prepared []Transaction `msgpack:",omitempty"`
}

// Transaction names output that an external system holds back until a checkpoint is complete.
type Transaction struct {
	Epoch  determinant.Epoch
	Handle string
}

func (Start) command() byte    { return 1 }
func (Complete) command() byte { return 2 }
func (Abandon) command() byte  { return 3 }
func (Switch) command() byte   { return 4 }

func (c Start) epoch() determinant.Epoch    { return c.Epoch }
func (c Complete) epoch() determinant.Epoch { return c.Epoch }
func (c Abandon) epoch() determinant.Epoch  { return c.Epoch }
func (c Switch) epoch() determinant.Epoch   { return 0 } // it names none

// String gives the command in one line.
func (c Start) String() string {
	return fmt.Sprintf("start %d, then %s depth %s", c.Epoch, c.Mode, c.Depth)
}

// String gives the command in one line.
func (c Complete) String() string {
	s := fmt.Sprintf("complete %d:", c.Epoch)
	for _, t := range c.Tasks {
		s += fmt.Sprintf(" %d/%d@%d%v", t.Task, t.Incarnation, t.Log, t.Holders)
		if t.Ended {
			s += "ended"
		}
	}
	return s
}

// String gives the command in one line.
func (c Abandon) String() string { return fmt.Sprintf("abandon %d", c.Epoch) }

// String gives the command in one line.
func (c Switch) String() string { return fmt.Sprintf("switch to %s depth %s", c.Mode, c.Depth) }

// EncodeCommand gives the byte form of a command for the ledger: a tag byte and msgpack. Equal commands have equal bytes.
func EncodeCommand(c Command) ([]byte, error) {
	body, err := msgpack.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: encode %v: %w", c, err)
	}
	return append([]byte{c.command()}, body...), nil
}

// DecodeCommand is the inverse of EncodeCommand. An error has ErrCorrupt in its chain.
func DecodeCommand(src []byte) (Command, error) {
	if len(src) == 0 {
		return nil, fmt.Errorf("%w: empty command", ErrCorrupt)
	}
	var c Command
	var err error
	switch src[0] {
	case Start{}.command():
		c, err = decodeAs[Start](src[1:])
	case Complete{}.command():
		c, err = decodeAs[Complete](src[1:])
	case Abandon{}.command():
		c, err = decodeAs[Abandon](src[1:])
	case Switch{}.command():
		c, err = decodeAs[Switch](src[1:])
	default:
		err = fmt.Errorf("unknown tag %d", src[0])
	}
	if err != nil {
		return nil, fmt.Errorf("%w: command: %v", ErrCorrupt, err)
	}
	return c, nil
}

func decodeAs[C Command](body []byte) (c C, err error) {
	r := bytes.NewReader(body)
	if err := msgpack.NewDecoder(r).Decode(&c); err != nil {
		return c, err
	}
	if r.Len() > 0 {
		return c, fmt.Errorf("%d bytes left over", r.Len())
	}
	return c, nil
}
