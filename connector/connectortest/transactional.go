package connectortest

import (
	"fmt"
	"testing"

	"github.com/understudy-stream/understudy/operator"
)

// TransactionalPlace is one place outside that a transactional sink shows its output in: a topic, a table, a directory.
type TransactionalPlace struct {
	// Sink makes the sink as a process of the job does that was just started. Two processes share the place and nothing else.
	// If the sink is an operator.SinkIdentifier, the suite calls Identify. Required.
	Sink func() operator.TransactionalSink
	// Read gives the records that an outside reader sees of a task's output at this moment, from the first, as they were given
	// to Write. It sees what is committed and nothing else. Required.
	Read func(task int) []string
	// Faulty makes a sink like Sink of which every step that changes something outside goes through do: one system call, one
	// request, one statement. do calls step and returns its error, or fails instead, or fails after step was done. It may be
	// called from several goroutines; its second argument is for steps that can be done by half, and may be nil. Without
	// Faulty, the suite lets processes die between calls and not within them.
	Faulty func(do func(step, half func() error) error) operator.TransactionalSink
	// Record makes record n of a life g of the task. Every pair is another record. Nil is a JSON object.
	Record func(n, g int) []byte
	// Few says that calls are slow: the suite then tries fewer sequences of them.
	Few bool
}

// TransactionalSink tests an implementation of operator.TransactionalSink and operator.TransactionalStore. place makes a place that
// is empty and shared with no other; it is called for every test and every random sequence, and takes down with t.Cleanup what
// it set up.
func TransactionalSink(t *testing.T, place func(t testing.TB) TransactionalPlace) {
	s := &heldSuite{place: place}
	for _, c := range heldCases {
		t.Run(c.name, func(t *testing.T) {
			if c.faulty && place(t).Faulty == nil {
				t.Skip("the place has no Faulty: nothing fails within a call")
			}
			c.run(t, s)
		})
	}
}

// heldCase is one rule, or one kind of misfortune.
type heldCase struct {
	name   string
	faulty bool // needs TransactionalPlace.Faulty
	run    func(t testing.TB, s *heldSuite)
}

// heldSuite is what all cases share.
type heldSuite struct {
	place func(t testing.TB) TransactionalPlace
	hasty bool // what must be seen is seen at once
}

// heldCases is every case, simple ones first.
var heldCases = []heldCase{
	{name: "held back", run: caseHeldBack},
	{name: "order", run: caseHeldOrder},
	{name: "large", run: caseHeldLarge},
	{name: "empty epochs", run: caseEmptyEpochs},
	{name: "commit again", run: caseCommitAgain},
	{name: "abort", run: caseAbort},
	{name: "fence", run: caseHeldFence},
	{name: "fence lists", run: caseFenceLists},
	{name: "fence undoes", run: caseFenceUndoes},
	{name: "another process", run: caseAnotherProcess},
	{name: "commit beside a write", run: caseCommitBesideAWrite},
	{name: "tasks", run: caseHeldTasks},
	{name: "close", run: caseHeldClose},
	{name: "cancelled", run: caseHeldCancelled},
	{name: "crash between calls", run: caseHeldCrash},
	{name: "lost answer", run: caseHeldLostAnswer},
	{name: "zombies", run: caseHeldZombies},
	{name: "crash in a step", faulty: true, run: caseHeldCrashInStep},
	{name: "random", run: caseHeldRandom},
}

// heldRecord is the default of TransactionalPlace.Record.
func heldRecord(n, g int) []byte { return fmt.Appendf(nil, `{"n":%d,"g":%d}`, n, g) }
