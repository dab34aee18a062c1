package main

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// waitAgain is after what time a reason that has not changed is said again.
const waitAgain = time.Minute

// waitLog says why something waits, once for each reason. A nil one says nothing.
type waitLog struct {
	logger *slog.Logger
	mu     struct {
		sync.Mutex
		said map[string]waited
	}
}

// waited is what was last said of a place, and when.
type waited struct {
	why string
	at  time.Time
}

// endpointKey is the attribute of everything that is logged of sources and sinks.
const endpointKey = "endpoint"

// newWaitLog makes one that a process of this command has. A worker that another process has started writes what that one passes on.
func newWaitLog(w io.Writer, child bool) *waitLog {
	var h slog.Handler = slog.NewTextHandler(w, nil)
	if child {
		h = slog.NewJSONHandler(w, nil)
	}
	l := &waitLog{logger: slog.New(h)}
	l.mu.said = make(map[string]waited)
	return l
}

// say tells why what waits, or, if why is empty, that it goes on.
func (l *waitLog) say(what, why string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last, now := l.mu.said[what], time.Now()
	if why == last.why && now.Sub(last.at) < waitAgain {
		return
	}
	if why == "" {
		delete(l.mu.said, what)
		if last.why != "" {
			l.logger.Info("goes on", endpointKey, what)
		}
		return
	}
	l.mu.said[what] = waited{why: why, at: now}
	l.logger.Warn("waits", endpointKey, what, "why", why)
}

// failed is say with an error, nil if what goes on.
func (l *waitLog) failed(what string, err error) {
	if err == nil {
		l.say(what, "")
		return
	}
	l.say(what, err.Error())
}

func (l *waitLog) split(split, why string) {
	if split == "" {
		split = "all splits"
	}
	l.say("source "+split, why)
}

func (l *waitLog) task(task int, why string) { l.say("sink "+strconv.Itoa(task), why) }

func (l *waitLog) note(text string) {
	if l != nil {
		l.logger.Info(text, endpointKey, "ingest server")
	}
}

// endpointsOnly passes on what workers say of sources and sinks, and nothing else.
type endpointsOnly struct{ slog.Handler }

// Handle implements slog.Handler.
func (h endpointsOnly) Handle(ctx context.Context, r slog.Record) (err error) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == endpointKey {
			err = h.Handler.Handle(ctx, r)
			return false
		}
		return true
	})
	return err
}

// WithAttrs implements slog.Handler.
func (h endpointsOnly) WithAttrs(attrs []slog.Attr) slog.Handler {
	return endpointsOnly{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h endpointsOnly) WithGroup(name string) slog.Handler {
	return endpointsOnly{h.Handler.WithGroup(name)}
}
