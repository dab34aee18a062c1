package connectortest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Waits between two looks at an output that is not complete yet: an outside reader may see it a little later.
const (
	firstWait = time.Millisecond
	lastWait  = 50 * time.Millisecond
)

// visibleIn bounds how long after a call has returned an outside reader may be without what it made visible.
const visibleIn = 5 * time.Second

// watch reads the output until it is what must be seen, and gives it.
func (w *causalWorld) watch() []string {
	w.t.Helper()
	end := time.Now().Add(min(w.patience, visibleIn))
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		seen := w.place.Read(w.task)
		problem, mayGrow := w.compare(seen)
		if problem == "" {
			return seen
		}
		if !mayGrow || time.Now().After(end) {
			w.t.Fatalf("the output of task %d: %s", w.task, problem)
		}
		<-time.After(wait)
	}
}

// compare says what is wrong with an output, and whether more of it would mend that.
func (w *causalWorld) compare(seen []string) (problem string, mayGrow bool) {
	if w.cutting && w.restart == nil && len(seen) >= w.kept && len(seen) <= len(w.shown) && slices.Equal(seen, w.shown[:len(seen)]) {
		return "", false // what is taken back goes from the end
	}
	for i, got := range seen {
		want := "no record"
		switch {
		case i < len(w.shown):
			want = w.shown[i]
		case i-len(w.shown) < len(w.beyond):
			want = w.beyond[i-len(w.shown)]
		}
		if got != want {
			return fmt.Sprintf("record %d of %d is %s, it must be %s", i, len(seen), brief(got), brief(want)), false
		}
	}
	if least := len(w.shown) + w.sure; len(seen) < least {
		return fmt.Sprintf("%d records are seen, %d must be", len(seen), least), true
	}
	return "", false
}

func brief(record string) string {
	const long = 100
	if len(record) > long {
		return fmt.Sprintf("%s… (%d bytes)", record[:long], len(record))
	}
	return record
}

// settle compares what a Fence returned with the model. From here on it is known what was shown. It tells how far each log is
// stored.
func (w *causalWorld) settle(stored operator.Stored) offsets {
	w.t.Helper()
	seen := w.watch()
	switch {
	case w.cutting && w.restart != nil:
		w.settleBack(stored, seen, *w.restart)
		if len(stored.Deltas) > 0 {
			w.t.Fatalf("Fence: %d deltas of an earlier history are stored after a Restart", len(stored.Deltas))
		}
		w.given = nil
	case w.cutting:
		shown, least := w.shown, w.kept
		w.settleBack(stored, seen, w.cut.Cursor)
		// A store that was cut when an earlier Fence failed may have forgotten how much it will show again.
		if again := uint64(len(seen) - least); stored.Shown != again && !w.tried {
			w.t.Fatalf("Fence: Stored.Shown is %d, but %d records beyond the cut are still seen", stored.Shown, again)
		}
		if least < len(seen) && len(seen) < len(shown) {
			w.t.Fatalf("Fence: the cut is half done: of %d records that it takes back %d are still seen", len(shown)-least, len(seen)-least)
		}
	default:
		w.settleCursor(stored, seen)
	}
	w.cutting, w.tried, w.restart, w.failed = false, false, nil, false
	return w.settleDeltas(stored.Deltas)
}

// settleBack is settle for a Fence that lets the output begin anew at a checkpoint.
func (w *causalWorld) settleBack(stored operator.Stored, seen []string, to determinant.Cursor) {
	w.t.Helper()
	if stored.Cursor != to {
		w.t.Fatalf("Fence: Stored.Cursor is %v, it must be that of the cut or restart, %v", stored.Cursor, to)
	}
	w.shown, w.beyond, w.sure, w.tries = slices.Clone(seen), nil, 0, nil
	w.at = to.Next
}

// settleCursor is settle where output goes on. A write that failed before an earlier Fence may have stored its determinants: when what
// others have shown meanwhile reaches its end, the output may end there.
func (w *causalWorld) settleCursor(stored operator.Stored, seen []string) {
	w.t.Helper()
	cursor := stored.Cursor
	if cursor == (determinant.Cursor{}) {
		cursor = w.out.cursors[0]
	}
	passed := func(s determinant.Seq) bool { return s <= w.at }
	may := append(slices.DeleteFunc(w.tries, passed), w.at)
	i := slices.IndexFunc(may, func(s determinant.Seq) bool { return w.out.cursors[s] == cursor })
	if i < 0 {
		var wants []determinant.Cursor
		for _, s := range may {
			wants = append(wants, w.out.cursors[s])
		}
		w.t.Fatalf("Fence: Stored.Cursor is %v, it must be one of %v", cursor, wants)
	}
	torn := len(seen) - len(w.shown)
	records := w.out.records(w.at, may[i])
	if len(records) > torn {
		w.t.Fatalf("Fence: Stored.Cursor is %v, but of the %d records up to there only %d are seen", cursor,
			len(w.shown)+len(records), len(seen))
	}
	w.shown = append(w.shown, records...)
	w.beyond = w.beyond[len(records):torn]
	w.sure = len(w.beyond)
	w.at, w.tries = may[i], may[:len(may)-1]
}

// settleDeltas checks deltas that a Fence returned.
func (w *causalWorld) settleDeltas(deltas [][]byte) offsets {
	w.t.Helper()
	next := 0
	for i, d := range deltas {
		if len(d) == 0 || w.unordered {
			continue
		}
		k := slices.IndexFunc(w.given[next:], func(g []byte) bool { return bytes.Equal(g, d) })
		if k < 0 {
			w.t.Fatalf("Fence: stored delta %d of %d was never given, or not behind those before it", i, len(deltas))
		}
		next += k + 1
	}
	at, err := w.out.covers(deltas, w.seenTo())
	if err != nil {
		w.t.Fatalf("Fence: %v", err)
	}
	return at
}

// seenTo is the position after the last record that is seen.
func (w *causalWorld) seenTo() determinant.Seq {
	s := w.at
	for n := 0; n < w.sure; s++ {
		if w.out.elements[s] != nil {
			n++
		}
	}
	return s
}
