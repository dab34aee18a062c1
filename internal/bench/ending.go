package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"time"
)

// An ending is how the sources of a job are told that it is over, where nobody knows beforehand how long it takes: a file, written once, that
// says which record is the first that is not sent. It is written well before that record is due, and every reader has looked for the
// file shortly before it gives a record.
//
// Invariant: no reader gives a record from the end on, and a reader that reads again ends where the one before it did.
type ending struct {
	path  string
	safe  int64  // microseconds since the Unix epoch: what is due before it comes before any end
	until uint64 // the first record that is not sent
}

// endingLooks is how often a reader looks for the end, by when its records are due. So an end that was written must be at least so far ahead.
const endingLooks = 500 * time.Millisecond

var errEndTooLate = errors.New("bench: writing down the end took so long that sources may have gone beyond it")

// endAt tells the sources that read path to end before record until, which is due then.
func endAt(path string, until uint64, due time.Time) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(strconv.FormatUint(until, 10)), 0o600); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	if time.Until(due) < endingLooks {
		return errEndTooLate
	}
	return nil
}

func newEnding(path string) *ending { return &ending{path: path, until: math.MaxUint64} }

// over tells whether a record, which is due and has not been given, is one that is not sent.
func (e *ending) over(n uint64, due int64) (bool, error) {
	if due >= e.safe {
		if err := e.look(); err != nil {
			return false, err
		}
	}
	return n >= e.until, nil
}

func (e *ending) look() error {
	now := time.Now()
	text, err := os.ReadFile(e.path)
	if errors.Is(err, fs.ErrNotExist) {
		e.safe = now.Add(endingLooks).UnixMicro()
		return nil
	}
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if e.until, err = strconv.ParseUint(string(text), 10, 64); err != nil {
		return fmt.Errorf("bench: the end of the job: %w", err)
	}
	e.safe = math.MaxInt64
	return nil
}
