package outside

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// See takes a record that became visible: of which part, and when the client had it. The bytes are valid during the call. An error
// ends the following.
type See func(part string, record []byte, at time.Time) error

// Place is where one run of a job shows its output.
type Place interface {
	// Causal gives the sink that shows each record at once.
	Causal() operator.CausalSink
	// Transactional gives the sink that shows what was committed with a checkpoint, nil if the connector has none.
	Transactional() operator.TransactionalSink
	// Follow gives every record from the first on to see, as they become visible, until ctx ends, which is no error. Nothing
	// needs to be there yet.
	Follow(ctx context.Context, see See) error
	// Remove removes all that the sink has made. What is not there is no error.
	Remove(ctx context.Context) error
}

// ErrNoPlace is returned for a URL of which this package cannot read what is shown.
var ErrNoPlace = errors.New("outside: no sink that can be read from outside, which begin with file, nats, tls, kafka, postgres or postgresql")

// At gives the place that a sink's URL says, under a name of its own: the suffix, letters and digits, is added to the directory,
// stream, topic or table, so that each run begins with nothing. The sink has so many tasks.
func At(url, suffix string, tasks int) (Place, error) {
	scheme, _, _ := strings.Cut(url, ":")
	switch scheme {
	case "file":
		return newFiles(url, suffix)
	case "nats", "tls":
		return newStreams(url, suffix, tasks)
	case "kafka":
		return newTopic(url, suffix, tasks)
	case "postgres", "postgresql":
		return newTable(url, suffix, tasks)
	}
	return nil, ErrNoPlace
}

// partName names what a task shows.
func partName(task int) string { return fmt.Sprintf("task-%05d", task) }

// retry is how often it is looked whether something is there.
const retry = 20 * time.Millisecond

// pause waits; false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
