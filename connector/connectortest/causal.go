package connectortest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// CausalPlace is one place outside that a causal sink shows its output in: a directory, a table, a topic.
type CausalPlace struct {
	// Sink makes the sink as a process of the job does that was just started. Two processes share the place and nothing else.
	// If the sink is an operator.SinkIdentifier, the suite calls Identify. Required.
	Sink func() operator.CausalSink
	// Read gives the whole records that an outside reader sees of a task's output at this moment, from the first, as they were
	// given to Write. Required.
	Read func(task int) []string
	// Faulty makes a sink like Sink of which every step that changes something outside goes through do: one system call, one
	// request, one statement. Without it, the suite lets processes die between calls and not within them.
	Faulty func(do Steps) operator.CausalSink
	// Record makes record n of an output. Where a job's choices differ, so does g: its records must be other records then. Nil is
	// a JSON object.
	Record func(n, g int) []byte
}

// Steps is the suite's hand on a process: it calls step and returns its error, or fails instead, or fails after step was done
// (the answer is lost), or calls half in its place and fails, or blocks for a while (the process is stopped). half does a part of
// step, such as the first bytes of a write; nil where there is no such thing. It may be called from several goroutines.
type Steps func(step, half func() error) error

// CausalSink tests an implementation of operator.CausalSink and operator.CausalStore. place makes a place that is empty and
// shared with no other; it is called for every test and every random sequence, and takes down with t.Cleanup what it set up.
func CausalSink(t *testing.T, place func(t testing.TB) CausalPlace) {
	s := &causalSuite{place: place, patience: patience}
	for _, c := range causalCases {
		t.Run(c.name, func(t *testing.T) {
			if c.faulty && place(t).Faulty == nil {
				t.Skip("the place has no Faulty: nothing fails within a call")
			}
			c.run(t, s)
		})
	}
}

// causalCase is one rule, or one kind of misfortune.
type causalCase struct {
	name   string
	faulty bool // needs CausalPlace.Faulty
	run    func(t testing.TB, s *causalSuite)
}

// causalSuite is what all cases share.
type causalSuite struct {
	place    func(t testing.TB) CausalPlace
	patience time.Duration
}

// patience bounds how long the suite waits for what must happen: a call that must return, a record that must be seen.
const patience = 30 * time.Second

// jsonRecord is the default of CausalPlace.Record.
func jsonRecord(n, g int) []byte {
	return fmt.Appendf(nil, `{"n":%d,"g":%d,"x":"%s"}`, n, g, strings.Repeat("x", n%7*5))
}

// causalCases is every case, simple ones first.
var causalCases = []causalCase{
	{name: "order", run: caseOrder},
	{name: "equal fence", run: caseEqualFence},
	{name: "fence", run: caseFence},
	{name: "contradiction", run: caseContradiction},
	{name: "tasks", run: caseTasks},
	{name: "close", run: caseClose},
	{name: "identity", run: caseIdentity},
	{name: "truncate", run: caseTruncate},
	{name: "cut", run: caseCut},
	{name: "cut to the start", run: caseCutToStart},
	{name: "restart", run: caseRestart},
	{name: "crash between calls", run: caseCrash},
	{name: "lost answer", run: caseLostAnswer},
	{name: "zombies", run: caseZombies},
	{name: "reader", run: caseReader},
	{name: "cancelled", run: caseCancelled},
	{name: "crash in a step", faulty: true, run: caseCrashInStep},
	{name: "failed step", faulty: true, run: caseFailedStep},
	{name: "failed cut", faulty: true, run: caseFailedCut},
	{name: "torn", faulty: true, run: caseTorn},
	{name: "stopped", faulty: true, run: caseStopped},
	{name: "large", run: caseLarge},
	{name: "random", run: caseRandom},
}
