package raftmeta

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	repeatPause = time.Minute
	maxRepeats  = 256 // messages that are remembered
)

// repeats keeps a message from being shown again and again: without a majority the library says the same of every election, some
// times a second, for as long as that lasts.
type repeats struct {
	mu struct {
		sync.Mutex
		shown map[string]repeated
	}
}

type repeated struct {
	at      time.Time
	leftOut int
}

// first tells whether a message is to be shown, and how often the same was left out since it was last.
func (r *repeats) first(msg string, args []any, now time.Time) (show bool, leftOut int) {
	key := sameness(msg, args)
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.mu.shown[key]
	if known && now.Sub(old.at) < repeatPause {
		old.leftOut++
		r.mu.shown[key] = old
		return false, 0
	}
	if r.mu.shown == nil || len(r.mu.shown) >= maxRepeats {
		r.mu.shown = map[string]repeated{}
	}
	r.mu.shown[key] = repeated{at: now}
	return true, old.leftOut
}

// passing are arguments that differ each time that the same is said.
var passing = []any{"term", "time", "backoff time"}

// sameness is what two messages have in common that say the same: their text and their arguments, but for passing ones.
func sameness(msg string, args []any) string {
	key := strings.Builder{}
	key.WriteString(msg)
	for i := 0; i+1 < len(args); i += 2 {
		if !slices.Contains(passing, args[i]) {
			fmt.Fprintf(&key, "|%v=%v", args[i], args[i+1])
		}
	}
	return key.String()
}
