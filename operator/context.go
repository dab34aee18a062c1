package operator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Context is what a user function may ask for besides its arguments. Whatever is not a function of its arguments and state
// must come from here, so that a standby that replays the task gets the same answers. It is valid during the call only.
type Context interface {
	// Now is the processing time, in UTC with millisecond precision. It is constant within a step and never goes back.
	Now() time.Time
	// Rand is the task's random generator. Do not keep it.
	Rand() *rand.Rand
	// Call asks something of the outside world and waits for the answer, which is recorded: a replay gets the same answer and
	// does not call f. request must say all that f depends on.
	Call(request []byte, f func(ctx context.Context, request []byte) ([]byte, error)) ([]byte, error)
	// EventTime is the timestamp of the record or event-time timer at hand, if it has one.
	EventTime() (time.Time, bool)
	// Watermark is the event time up to which everything has arrived, false while it is unknown.
	Watermark() (time.Time, bool)
	// Task names the task, for messages.
	Task() TaskInfo
}

// UserError is an error that a user's function returned, or a panic in it. It fails the task.
type UserError struct {
	Operator string // the operator's name
	Err      error
	Stack    string // of a panic, otherwise empty
}

// Error gives the operator's name and the error. The stack of a panic is not part of it.
func (e *UserError) Error() string { return fmt.Sprintf("operator: %q: %v", e.Operator, e.Err) }

// Unwrap returns what the user's function returned.
func (e *UserError) Unwrap() error { return e.Err }

// unwinder is implemented by the values with which Runtime ends a step; they are for the step loop alone.
type unwinder interface{ Unwind() }

// site is one operator's place in a chain. It is the Context of its user functions.
type site struct {
	rt      Runtime
	chain   *instance
	name    string
	index   int // among the chain's operators, head first
	ts      int64
	hasTime bool
	wm      int64
}

func (s *site) Now() time.Time   { return time.UnixMilli(s.rt.Now()).UTC() }
func (s *site) Rand() *rand.Rand { return s.rt.Rand() }
func (s *site) Task() TaskInfo   { return s.rt.Task() }

func (s *site) Call(request []byte, f func(context.Context, []byte) ([]byte, error)) ([]byte, error) {
	return s.rt.Call(xxhash.Sum64(request), func(ctx context.Context) ([]byte, error) { return f(ctx, request) })
}

func (s *site) EventTime() (time.Time, bool) {
	if !s.hasTime {
		return time.Time{}, false
	}
	return time.UnixMilli(s.ts).UTC(), true
}

func (s *site) Watermark() (time.Time, bool) {
	if s.wm == MinTime {
		return time.Time{}, false
	}
	return time.UnixMilli(s.wm).UTC(), true
}

// enter notes that user code of this operator runs next, so that a panic gets its name.
func (s *site) enter() { s.chain.current = s.index }

// begin is enter for a record.
func (s *site) begin(ts int64, hasTime bool) {
	s.ts, s.hasTime = ts, hasTime
	s.chain.current = s.index
}

// user wraps an error of a user's function.
func (s *site) user(err error) error { return &UserError{Operator: s.name, Err: err} }

// failed wraps an error of the engine's own work for this operator.
func (s *site) failed(what string, err error) error {
	return fmt.Errorf("operator: %q: %s: %w", s.name, what, err)
}

// unreadable is what a table panics with whose entry cannot be decoded: no record is to blame.
type unreadable struct{ err error }

// guard turns a panic in user code into a UserError. It is deferred at every entry of a chain.
func (c *instance) guard(err *error) {
	r := recover()
	if r == nil {
		return
	}
	if _, ok := r.(unwinder); ok {
		panic(r)
	}
	if u, ok := r.(unreadable); ok {
		*err = u.err
		return
	}
	*err = &UserError{Operator: c.sites[c.current].name, Err: panicked(r), Stack: string(debug.Stack())}
}

// panicked is what was recovered from a panic as an error that says where it was. It is called by who has recovered.
func panicked(r any) error {
	cause, ok := r.(error)
	if !ok {
		cause = fmt.Errorf("%v", r)
	}
	if at := panicPlace(); at != "" {
		return fmt.Errorf("panic: %w, at %s", cause, at)
	}
	return fmt.Errorf("panic: %w", cause)
}

// panicPlace is the function that panicked last, and its file and line: the first one above the runtime's own frames, if it was the runtime
// that panicked. Empty if nothing is known.
func panicPlace() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for panicking := false; ; {
		f, more := frames.Next()
		switch ours := strings.HasPrefix(f.Function, "runtime.") || strings.HasPrefix(f.Function, "internal/runtime/"); {
		case f.Function == "runtime.gopanic":
			panicking = true
		case panicking && !ours:
			return fmt.Sprintf("%s (%s:%d)", path.Base(f.Function), path.Base(f.File), f.Line)
		}
		if !more {
			return ""
		}
	}
}
