package task

import (
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

// Probe watches what a task depends on, for the checkers of the simulator. Its methods must not change anything.
type Probe interface {
	// Delivered is told of a batch before it waits for the task, Took when the task begins to take it.
	Delivered(t *Task, input int, b *inflightlog.Batch)
	Took(t *Task, input int, b *inflightlog.Batch)
	// Tag gives a batch of output channel c its Tag when it is sealed.
	Tag(t *Task, c determinant.ChannelID, b *inflightlog.Batch) any
}
