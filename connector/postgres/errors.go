package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/understudy-stream/understudy/operator"
)

// Errors that a caller may branch on. Those that no other try can mend have operator.ErrPermanent in their chain.
var (
	// ErrIdentity is returned by a sink that nobody has told which job it is of.
	ErrIdentity = permanent("postgres: the sink has no identity: the engine gives it one, others set SinkOptions.Identity")
	// ErrJob is returned when the table has the output of another job.
	ErrJob = permanent("postgres: the table belongs to another job")
	// ErrForeign is returned when the table has a sink's output, and nothing is stored that belongs to it.
	ErrForeign = permanent("postgres: the table has output of a sink that nothing is known of")
	// ErrTable is returned for a table or column that is missing or cannot be used.
	ErrTable = permanent("postgres: the table cannot be used")
	// ErrRecord is returned for a record that does not fit the table.
	ErrRecord = permanent("postgres: the record does not fit the table")
	// ErrCorrupt is returned when a global rollback goes to a position that was never written.
	ErrCorrupt = permanent("postgres: corrupt")
	// ErrGap is returned for a write that does not begin where the output ends.
	ErrGap = errors.New("postgres: the write does not begin where the output ends")
	// ErrUnfenced is returned for a write by an incarnation that no Fence has announced.
	ErrUnfenced = errors.New("postgres: the writer has not fenced the store")
	// ErrKey is returned for a key that is no whole number, not unique, or null.
	ErrKey = permanent("postgres: the key cannot be used")
	// ErrChanged is returned when a range of keys has other rows than when the job began.
	ErrChanged = permanent("postgres: the rows have changed since the job began")
	// ErrOffset is returned when a split is opened at an offset that it never gave.
	ErrOffset = errors.New("postgres: the split does not have the offset")
	// ErrFollow is returned for a table that cannot be followed exactly.
	ErrFollow = permanent("postgres: the table cannot be followed exactly")
)

// permanent makes an error that ends the job: whoever tries again gets it again.
func permanent(text string) error { return permanentError(text) }

type permanentError string

func (e permanentError) Error() string        { return string(e) }
func (e permanentError) Is(target error) bool { return target == operator.ErrPermanent }

// serverError is what the server, or the way to it, has said. It shows no password.
type serverError struct {
	text  string
	err   *pgconn.PgError // nil if the server did not answer
	cause error           // context.Canceled or context.DeadlineExceeded
	again bool            // another try may succeed
}

func (e *serverError) Error() string { return "postgres: " + e.text }

// Is tells whether another try can mend it.
func (e *serverError) Is(target error) bool {
	return target == operator.ErrPermanent && !e.again && e.cause == nil
}

// Unwrap gives the server's own words, and whether a context has ended.
func (e *serverError) Unwrap() []error {
	var errs []error
	if e.err != nil {
		errs = append(errs, e.err)
	}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

// redacted makes a serverError of an error of the client library.
func redacted(err error, password string) *serverError {
	e := &serverError{text: redact(oneLine(err.Error()), password)}
	errors.As(err, &e.err)
	if e.err != nil && e.err.Detail != "" {
		e.text += ": " + redact(e.err.Detail, password)
	}
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, cause) {
			e.cause = cause
		}
	}
	return e
}

// oneLine makes one line of the client library's several, of which there is one for each way that was tried: with encryption and
// without are two, which mostly say the same.
func oneLine(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	head, rest := lines[0], slices.Compact(lines[1:])
	if len(rest) == 0 {
		return head
	}
	return head + " " + strings.Join(rest, "; ")
}

// classified says whether another try may succeed: where the server did not answer, is starting or stopping, is short of
// something, or had to choose a victim.
func classified(e *serverError) *serverError {
	e.again = e.err == nil || passing(e.err.Code)
	return e
}

// passing tells whether an SQLSTATE is of an error that goes away by itself.
func passing(code string) bool {
	switch code {
	case "57P01", "57P02", "57P03", // shut down by the administrator, by a crash; starting up
		"57014",                   // cancelled
		"57P05",                   // idle for too long
		"25006",                   // read only: a standby that is about to take over
		"40001", "40P01", "55P03", // serialization, deadlock, a lock that is not to be had
		"25P02", "25P03": // the transaction is over
		return true
	}
	return strings.HasPrefix(code, "08") || // the connection
		strings.HasPrefix(code, "53") || // memory, disk, connections
		strings.HasPrefix(code, "58") // the system
}

// tryAgain tells whether a call may be made again.
func tryAgain(err error) bool {
	var e *serverError
	return errors.As(err, &e) && e.again
}

const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// patient calls f until it does not fail in a way that another try may mend. It ends with ctx. call is
// told why it waits.
func (a *Access) patient(ctx context.Context, call *operator.Wait, f func(ctx context.Context) error) error {
	defer call.Say("")
	told := func(error) {}
	if a.Waiting != nil {
		told = a.Waiting
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := f(ctx)
		if ctx.Err() != nil && err != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		if !tryAgain(err) {
			if pause > firstPause {
				told(nil)
			}
			return err
		}
		call.Say(err.Error())
		told(err)
		if !wait(ctx, pause) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// wait waits; false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
