package connectortest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/understudy-stream/understudy/operator"
)

func TestTransactionalMemoryConforms(t *testing.T) {
	TransactionalSink(t, func(testing.TB) TransactionalPlace { return newHeldMemory().place() })
}

// TestPatientTransactionalMemoryConforms has a place whose calls are slow: fewer of them.
func TestPatientTransactionalMemoryConforms(t *testing.T) {
	TransactionalSink(t, func(testing.TB) TransactionalPlace {
		p := newHeldMemory().place()
		p.Few, p.Faulty = true, nil
		return p
	})
}

// heldMutants are the rules of heldMemory that can be switched off.
var heldMutants = []string{
	"tasks have outputs of their own",
	"a cancelled call says why",
	"a closed store refuses",
	"a fence holds between processes",
	"a fence holds for writes",
	"a fence holds for prepares",
	"a fence holds for commits",
	"a fence holds for aborts",
	"a lower fence is refused",
	"an equal fence is no error",
	"a fence is of one task",
	"a fence undoes what is open",
	"an equal fence undoes what is open",
	"a fence lists nothing that is decided",
	"a fence lists what is prepared",
	"a fence lists by epoch",
	"what is prepared survives a fence",
	"what is prepared survives its process",
	"the order is kept",
	"no record is lost",
	"what is written cannot be seen",
	"an epoch may be empty",
	"a handle names one transaction",
	"a handle is good in every process",
	"the epoch is named",
	"what is prepared cannot be seen",
	"epochs have transactions of their own",
	"a commit of what is aborted fails",
	"a commit of what is aborted fails for good",
	"a commit may be repeated",
	"a commit that is repeated shows nothing else",
	"a commit that is repeated shows nothing twice",
	"a commit shows the transaction",
	"a commit shows all of it",
	"a commit shows that transaction only",
	"an abort drops the transaction",
	"an abort may be repeated",
	"an abort leaves what is committed",
	"an abort shows nothing",
}

// TestTransactionalMutantsAreCaught switches off one rule at a time: some case must fail, and none may panic or hang.
func TestTransactionalMutantsAreCaught(t *testing.T) {
	for _, rule := range heldMutants {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			requireCaught(t, func(testing.TB) TransactionalPlace { return newHeldMemory(rule).place() })
		})
	}
	t.Run("records are the caller's", func(t *testing.T) {
		t.Parallel()
		requireCaught(t, func(testing.TB) TransactionalPlace {
			m := newHeldMemory()
			p := m.place()
			p.Sink = func() operator.TransactionalSink { return carelessProcess{&heldProcess{memory: m}} }
			return p
		})
	})
}

func requireCaught(t *testing.T, place func(testing.TB) TransactionalPlace) {
	t.Helper()
	s := &heldSuite{place: place, hasty: true}
	for _, c := range heldCases {
		if message := complaint(t, func(t testing.TB) { c.run(t, s) }); message != "" {
			t.Logf("%s: %s", c.name, message)
			return
		}
	}
	t.Error("no case notices")
}

// complaint gives what a case says when it fails; empty if it passes.
func complaint(t testing.TB, f func(t testing.TB)) string {
	c := &complaints{TB: t}
	var done sync.WaitGroup
	done.Go(func() { f(c) }) // Fatalf ends the goroutine
	done.Wait()
	for i := len(c.cleanups) - 1; i >= 0; i-- {
		c.cleanups[i]()
	}
	return c.message
}

// complaints is a test that keeps what it is failed with.
type complaints struct {
	testing.TB
	message  string
	cleanups []func()
}

func (c *complaints) Helper()             {}
func (c *complaints) Cleanup(f func())    { c.cleanups = append(c.cleanups, f) }
func (c *complaints) Logf(string, ...any) {}
func (c *complaints) Fatalf(format string, args ...any) {
	if c.message == "" {
		c.message = fmt.Sprintf(format, args...)
	}
	runtime.Goexit()
}
