package http

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// copyLog is the copy of another server's log.
//
// Invariant: the fence is on disk before anybody hears of it, and never falls. No record of a lower term is added.
type copyLog struct {
	log *lineLog
	mu  struct {
		sync.Mutex
		fence uint64
	}
}

func openCopy(dir string, o logOptions) (*copyLog, error) {
	log, err := openLog(dir, o)
	if err != nil {
		return nil, err
	}
	c := &copyLog{log: log}
	data, err := os.ReadFile(c.fenceFile())
	if err == nil {
		c.mu.fence, err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
		if err != nil {
			err = fmt.Errorf("%w: %s", ErrCorrupt, c.fenceFile())
		}
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, errors.Join(err, log.close())
	}
	s := log.state()
	c.mu.fence = max(c.mu.fence, s.Term)
	log.allow(s.End) // whatever is in a copy, its owner has too
	return c, nil
}

func (c *copyLog) fenceFile() string { return filepath.Join(c.log.dir, "fence") }

// describe says where the copy stands. The caller holds mu.
func (c *copyLog) describe() copyState {
	s := c.log.state()
	return copyState{
		Fence: c.mu.fence, Base: s.Head.Base, BaseLine: s.Head.Line, BaseTerm: s.Head.Term, End: s.End, TermStarts: s.Terms,
	}
}

// fence refuses terms below this one from now on. errStale: it was that high already.
func (c *copyLog) fence(term uint64) (copyState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if term <= c.mu.fence {
		return c.describe(), errStale
	}
	if err := writeWhole(c.fenceFile(), text(term)+"\n", true); err != nil {
		return copyState{}, err
	}
	c.mu.fence = term
	return c.describe(), nil
}

// append adds records of an owner that stand at a position. errStale: the owner was replaced, or the copy does not end there.
func (c *copyLog) append(term, at uint64, head segmentHead, data []byte) (copyState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if term < c.mu.fence {
		return c.describe(), errStale
	}
	if s := c.log.state(); s.empty() && at == head.Base {
		if err := c.log.reset(head); err != nil {
			return copyState{}, err
		}
	} else if s.End != at {
		return c.describe(), errStale
	}
	if err := c.log.admissible(data); err != nil {
		return copyState{}, err
	}
	if err := c.log.append(data); err != nil {
		return copyState{}, err
	}
	c.log.allow(c.log.state().End)
	return c.describe(), c.log.drop(head.Base, nil)
}

// admissible tells whether records from outside continue the log.
func (l *lineLog) admissible(data []byte) error {
	s := l.state()
	lines, term, ended := s.Lines, s.Term, s.Ended
	err := eachRecord(data, func(_ int, r *record) error {
		if r.First != lines || r.Term < term || ended {
			return fmt.Errorf("%w: a record of term %d at line %d; the copy is at line %d, term %d", ErrDiverged, r.Term, r.First, lines, term)
		}
		lines, term, ended = r.First+r.Lines, r.Term, r.Kind == kindEnd
		return nil
	})
	if errors.Is(err, errTorn) {
		return fmt.Errorf("%w: what came is not whole records", ErrDiverged)
	}
	return err
}

// writeWhole replaces a small file: it has the old text or the new one, whatever happens; a loss of power included if sync is set.
func writeWhole(name, text string, sync bool) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err == nil {
		_, err = f.WriteString(text)
		if err == nil && sync {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err == nil && sync {
		err = syncDir(filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}
