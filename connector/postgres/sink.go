package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// SinkOptions says where a sink shows its output. URL and Table are required.
type SinkOptions struct {
	Access
	// Table is the table that output is added to, with its schema if that is not on the search path: "public.counts". Names are
	// taken as they are, without folding to lower case; a dot separates, and `"a.b".c` has a quoted one.
	Table string
	// Column is the one column that takes a record whole, of type json, jsonb, text or bytea. A table that is not there is made
	// then, with a column of type jsonb. Without Column, records are JSON objects and their fields go to the columns of their names.
	Column string
	// Columns are the columns that take fields. Default: all that are not generated and have no default. A record with a field
	// that has no column is ErrRecord; a column without a field becomes null.
	Columns []string
	// TaskColumn and RowColumn are columns of Table in which the sink notes where a row comes from: which task, an integer, and
	// which of the task's rows it is, a bigint, from 0. Defaults understudy_task and understudy_row.
	TaskColumn, RowColumn string
	// Identity names the job. It must be the same in every worker of a job and differ between any two jobs. The engine gives
	// the job's if this is empty.
	Identity string
	// Patience is how long a Fence waits for a replaced writer that holds the sink's row before it ends the writer's session at
	// the server. Default 2 s.
	Patience time.Duration
	// SynchronousCommit is the server's setting of that name for writes. Default "on": what a reader sees is on the server's disk.
	SynchronousCommit string

	call time.Duration // bound of a call; callTimeout outside tests
	step steps         // see session
}

// EnsureDefaults fills in what is zero.
func (o *SinkOptions) EnsureDefaults() {
	o.Access.EnsureDefaults()
	if o.TaskColumn == "" {
		o.TaskColumn = "understudy_task"
	}
	if o.RowColumn == "" {
		o.RowColumn = "understudy_row"
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	if o.SynchronousCommit == "" {
		o.SynchronousCommit = "on"
	}
	if o.call == 0 {
		o.call = callTimeout
	}
}

// Validate tells what is wrong with the options.
func (o *SinkOptions) Validate() error {
	if err := o.Access.Validate(); err != nil {
		return err
	}
	if _, err := parseName(o.Table); err != nil {
		return err
	}
	switch {
	case o.Patience < 0:
		return fmt.Errorf("postgres: negative patience %v", o.Patience)
	case o.Column != "" && len(o.Columns) > 0:
		return fmt.Errorf("postgres: a record goes to column %q whole, or its fields to %q", o.Column, o.Columns)
	}
	taken := map[string]bool{}
	for _, name := range append([]string{o.TaskColumn, o.RowColumn, o.Column}, o.Columns...) {
		if name != "" && taken[name] {
			return fmt.Errorf("postgres: column %q is to take two things", name)
		}
		taken[name] = true
	}
	return nil
}

// Output shows the output of each sink task as rows of a table. It implements operator.CausalSink.
type Output struct {
	options SinkOptions
	mu      struct {
		sync.Mutex
		identity string
		open     int
	}
}

var (
	_ operator.LineSink       = (*Output)(nil)
	_ operator.SinkIdentifier = (*Output)(nil)
)

// Sink shows output in a table. Nothing is asked of the server before a store is fenced.
func Sink(o SinkOptions) *Output {
	o.EnsureDefaults()
	s := &Output{options: o}
	s.mu.identity = o.Identity
	return s
}

// Lines makes it an operator.LineSink.
func (*Output) Lines() {}

// Identify gives the sink the job's identity unless the options have one. The engine calls it before Open.
func (s *Output) Identify(identity string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options.Identity != "" || s.mu.identity == identity {
		return nil
	}
	if s.mu.open > 0 {
		return fmt.Errorf("%w: it is open as that of job %q, and is to be that of job %q", ErrJob, s.mu.identity, identity)
	}
	s.mu.identity = identity
	return nil
}

// Open opens the store of one task. It does not wait for the server.
func (s *Output) Open(ctx context.Context, task, n int) (operator.CausalStore, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.options.Validate(); err != nil {
		return nil, err
	}
	if task < 0 || task >= n {
		return nil, fmt.Errorf("postgres: there is no task %d of %d", task, n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.identity == "" {
		return nil, ErrIdentity
	}
	s.mu.open++
	return newStore(s, s.mu.identity, task), nil
}

// release undoes one Open.
func (s *Output) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.open--
}
