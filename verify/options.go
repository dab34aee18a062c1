package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrUnusable marks an input that cannot be judged: no such file, not readable, malformed, or without the named field.
var ErrUnusable = errors.New("verify: unusable input")

const (
	// DefaultMemory is the sort memory of a check when Options.Memory is zero.
	DefaultMemory = 256 << 20
	// MinMemory is the least sort memory a check works with.
	MinMemory = 1 << 20
	// DefaultOffenders is how many offenders of each kind a report shows when Options.Offenders is zero.
	DefaultOffenders = 10
	// MaxLine is the longest line, in bytes, that a check reads. A longer one makes the file unusable.
	MaxLine = 64 << 20
)

// Options are the settings that all checks share. The zero value is the default.
type Options struct {
	// Memory is the memory for sorting, in bytes; 0 means DefaultMemory.
	Memory int64
	// TempDir is where sorted runs that do not fit in Memory are kept; empty means os.TempDir.
	TempDir string
	// Offenders is how many offenders of each kind the report shows; 0 means DefaultOffenders.
	Offenders int
	// Progress, if set, is called every 65536 records and at each change of phase, on the calling goroutine.
	Progress func(Progress)
}

// EnsureDefaults replaces zero values by the defaults.
func (o *Options) EnsureDefaults() {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	if o.Offenders == 0 {
		o.Offenders = DefaultOffenders
	}
}

// Validate reports settings that no check can work with.
func (o *Options) Validate() error {
	if o.Memory < MinMemory {
		return fmt.Errorf("verify: memory of %d bytes is below the least of %d", o.Memory, int64(MinMemory))
	}
	if o.Offenders < 0 {
		return fmt.Errorf("verify: number of offenders %d is negative", o.Offenders)
	}
	return nil
}

// Progress says how far a check has come.
type Progress struct {
	Phase   string        // what is being done, such as "reading output"
	Records int64         // records so far in this phase
	Bytes   int64         // bytes of files read so far in this phase, as they are on disk
	Total   int64         // bytes to read in this phase; 0 if unknown
	Elapsed time.Duration // since the check began
}

const (
	contextEvery  = 1 << 12 // records between two looks at the context
	progressEvery = 1 << 16 // records between two calls of the progress hook
)

// meter counts records, passes progress on and notices cancellation.
type meter struct {
	ctx     context.Context
	hook    func(Progress)
	started time.Time
	now     Progress
}

func newMeter(ctx context.Context, hook func(Progress)) *meter {
	return &meter{ctx: ctx, hook: hook, started: time.Now()}
}

// phase begins a new phase of total bytes.
func (m *meter) phase(name string, total int64) {
	m.now = Progress{Phase: name, Total: total}
	m.report()
}

// tick counts one record. It returns the context's error once that is cancelled.
func (m *meter) tick() error {
	m.now.Records++
	if m.now.Records%contextEvery != 0 {
		return nil
	}
	if m.now.Records%progressEvery == 0 {
		m.report()
	}
	return m.cancelled()
}

func (m *meter) cancelled() error {
	if m.ctx.Err() != nil {
		return fmt.Errorf("verify: stopped while %s: %w", m.now.Phase, context.Cause(m.ctx))
	}
	return nil
}

func (m *meter) report() {
	if m.hook != nil {
		m.now.Elapsed = time.Since(m.started)
		m.hook(m.now)
	}
}
