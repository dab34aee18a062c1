package connectortest

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestMemoryConforms(t *testing.T) {
	CausalSink(t, func(testing.TB) CausalPlace { return newMemory().place() })
}

// TestLogConforms has a place that can only be added to: after a cut it shows again what it has shown.
func TestLogConforms(t *testing.T) {
	CausalSink(t, func(testing.TB) CausalPlace {
		m := newMemory()
		m.log = true
		return m.place()
	})
}

// mutants are the rules of memory that can be switched off.
var mutants = []string{
	"tasks have outputs of their own",
	"a place belongs to one job",
	"a closed store refuses",
	"a store is closed by itself",
	"a cancelled call says why",
	"a cancelled write does not come later",
	"a checkpoint keeps what is ahead of it",
	"a late checkpoint is harmless",
	"a checkpoint lets go",
	"a checkpoint told twice is harmless",
	"a checkpoint leaves the output alone",
	"a fence does not wait for a stopped writer",
	"a lower fence is refused",
	"an equal fence is no error",
	"an equal fence leaves the writer alone",
	"a restart is obeyed",
	"a restart keeps what is shown",
	"a restart forgets determinants",
	"a cut is obeyed",
	"a cut is done once",
	"a cut comes before the answer",
	"a cut cuts the output",
	"a cut goes from the end",
	"a cut under way hides no fence",
	"a cut forgets determinants",
	"deltas are the caller's",
	"deltas come in order",
	"all deltas come back",
	"the cursor is behind the last write",
	"determinants are stored first",
	"determinants are stored",
	"a failed write is not tried again blindly",
	"a failed write leaves the store usable",
	"a fence holds between processes",
	"a fence is obeyed",
	"a fence holds during a write",
	"a fenced write stores nothing",
	"the caller's bytes are copied",
	"a gap is refused",
	"an overlap is refused",
	"the start is compared",
	"what is torn is compared",
	"what is torn is not shown again",
	"records keep their order",
	"no record is lost",
	"a write without records counts",
	"a fence is of one task",
	"closing leaves the fence alone",
	"the cursor is not ahead of what is seen",
}

// aliases are the mutants that share memory with their caller: no case runs them from several goroutines, which would be a data race.
var aliases = []string{"the caller's bytes are copied", "deltas are the caller's"}

// TestMutantsAreCaught switches off one rule at a time: some case must fail, and none may panic or hang. What says so for all
// rules at once, that nothing fails as long as none is broken, is TestMemoryConforms.
func TestMutantsAreCaught(t *testing.T) {
	for _, rule := range mutants {
		t.Run(rule, func(t *testing.T) {
			s := &causalSuite{patience: 300 * time.Millisecond, place: func(testing.TB) CausalPlace { return newMemory(rule).place() }}
			for _, c := range causalCases {
				if slices.Contains(aliases, rule) && slices.Contains([]string{"zombies", "reader", "stopped", "cancelled"}, c.name) {
					continue
				}
				run := c.run
				if c.name == "random" {
					run = seededRandom
				}
				if r := record(t, func(t testing.TB) { run(t, s) }); r.message != "" {
					t.Logf("%s: %s", c.name, r.message)
					return
				}
			}
			t.Errorf("no case notices that the rule is broken: %s", rule)
		})
	}
}

// seededRandom is caseRandom with seeds of its own: rapid has one test per process.
func seededRandom(t testing.TB, s *causalSuite) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		choose := func(_ string, n int) int { return random.IntN(n) }
		(&randomRun{w: newWorld(t, s, s.place(t), 0), choose: choose}).run()
	}
}

// recorder is a test that notes that it has failed and says so to nobody.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	message  string
	cleanups []func()
}

// record runs a test to its end.
func record(t testing.TB, f func(t testing.TB)) *recorder {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.clean()
		f(r)
	}()
	<-done
	return r
}

func (r *recorder) clean() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Logf(string, ...any) {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.mu.Lock()
	r.message = fmt.Sprintf(format, args...)
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *recorder) Skip(...any) { runtime.Goexit() }
