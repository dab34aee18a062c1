package main

import (
	"context"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// pacedWait is the least time that a paced reader waits for its next line: one that takes lines in twos and threes spends its time
// on waking up.
const pacedWait = 2 * time.Millisecond

// pacedLines reads each file as if it were being written, at so many bytes per second since the job began, or has found it. The moment is part of each
// split's identity, so that all processes, and all lives of a task, agree on it. Which lines are due when a task looks is chance; the
// task's log says how many it took.
//
// A job goes on at another pace, or at none: splits are opened whether they name a moment or not. If none is named, or a split is ahead of a slower
// pace, it goes on from where it is, as if it had begun that much earlier; a process remembers when, so that what a task reads again after a
// failure comes faster. A job that began without a pace has splits that are parts of files, and each has the whole pace.
type pacedLines struct {
	files *file.Source
	rate  int64 // bytes per second of each file; 0: as fast as they can be read

	mu    sync.Mutex
	began map[string]time.Time // by split, as this process reads them
}

// pacedFiles are the lines of files, at the pace that was asked for.
func (o *runOptions) pacedFiles(files *file.Source, options file.SourceOptions) operator.Source[file.Line] {
	if o.rate > 0 {
		options.SplitBytes = math.MaxInt64
	}
	return &pacedLines{files: files.With(options), rate: o.rate}
}

// Splits implements operator.Source.
func (p *pacedLines) Splits(ctx context.Context) ([]string, error) {
	splits, err := p.files.Splits(ctx)
	return p.beginning(splits), err
}

// beginning has splits begin now, if that makes a difference.
func (p *pacedLines) beginning(splits []string) []string {
	if p.rate == 0 {
		return splits
	}
	began := strconv.FormatInt(time.Now().UnixMicro(), 10)
	for i := range splits {
		splits[i] = began + " " + splits[i]
	}
	return splits
}

// cutBeginning takes the moment off a split. The zero time: it names none.
func cutBeginning(split string) (began time.Time, inner string) {
	text, inner, _ := strings.Cut(split, " ")
	micros, err := strconv.ParseInt(text, 10, 64) // the name of a file is quoted
	if err != nil {
		return time.Time{}, split
	}
	return time.UnixMicro(micros), inner
}

// DiscoveryInterval implements operator.Growing.
func (p *pacedLines) DiscoveryInterval() time.Duration { return p.files.DiscoveryInterval() }

// Discover implements operator.Growing: a new file is being written from when it is found.
func (p *pacedLines) Discover(ctx context.Context, known []string) (splits []string, all bool, err error) {
	files := make([]string, len(known))
	for i, split := range known {
		_, files[i] = cutBeginning(split)
	}
	splits, all, err = p.files.Discover(ctx, files)
	return p.beginning(splits), all, err
}

// InputOf implements operator.InputNamer.
func (p *pacedLines) InputOf(split string) string {
	_, inner := cutBeginning(split)
	return p.files.InputOf(inner)
}

// Open implements operator.Source.
func (p *pacedLines) Open(ctx context.Context, split string, offset uint64) (operator.Reader[file.Line], error) {
	_, inner := cutBeginning(split)
	r, err := p.files.Open(ctx, inner, offset)
	if err != nil || p.rate == 0 {
		return r, err
	}
	return &pacedReader{Reader: r, source: p, split: split, ready: make(chan struct{}, 1)}, nil
}

// beginningOf tells when a split began, whose next line is at an offset. What came before that offset is not late.
func (p *pacedLines) beginningOf(split string, offset uint64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if began, known := p.began[split]; known {
		return began
	}
	began, _ := cutBeginning(split)
	if latest := time.Now().Add(-time.Duration(float64(offset) / float64(p.rate) * float64(time.Second))); began.IsZero() || latest.Before(began) {
		began = latest
	}
	if p.began == nil {
		p.began = map[string]time.Time{}
	}
	p.began[split] = began
	return began
}

// pacedReader holds lines back until they are due.
type pacedReader struct {
	operator.Reader[file.Line]
	source  *pacedLines
	split   string
	began   time.Time // zero before the first line
	due     uint64    // lines that start below this are
	held    bool      // line is read and not yet due
	line    file.Line
	next    uint64
	ready   chan struct{}
	waiting *time.Timer
}

// Next implements operator.Reader.
func (r *pacedReader) Next() (l file.Line, next uint64, err error) {
	if !r.held {
		if l, next, err = r.Reader.Next(); err != nil {
			return l, next, err
		}
		r.held, r.line, r.next = true, l, next
		if r.began.IsZero() {
			r.began, r.due = r.source.beginningOf(r.split, l.Offset), l.Offset+1
		}
	}
	if r.line.Offset >= r.due && !r.reached(r.line.Offset) {
		return file.Line{}, 0, operator.ErrNotReady
	}
	r.held = false
	return r.line, r.next, nil
}

// reached tells whether a line is due; if not, Ready gets a value when it is.
func (r *pacedReader) reached(offset uint64) bool {
	since := time.Since(r.began)
	r.due = uint64(since.Seconds() * float64(r.source.rate))
	if offset < r.due {
		return true
	}
	wait := max(pacedWait, time.Duration(float64(offset)/float64(r.source.rate)*float64(time.Second))-since)
	if r.waiting == nil {
		r.waiting = time.AfterFunc(wait, r.wake)
	} else {
		r.waiting.Reset(wait)
	}
	return false
}

func (r *pacedReader) wake() {
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// Ready implements operator.Reader.
func (r *pacedReader) Ready() <-chan struct{} { return r.ready }

// Close implements operator.Reader.
func (r *pacedReader) Close() error {
	if r.waiting != nil {
		r.waiting.Stop()
	}
	return r.Reader.Close()
}
