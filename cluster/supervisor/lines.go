package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// Bounds of what is read of a child's output.
const (
	maxLine   = 16 << 10 // longer lines are cut
	tailLines = 12       // the last lines that are kept for an error
)

// eachLine calls f with each line up to the end or an error. The line is valid during the call.
func eachLine(r io.Reader, f func(line []byte)) error {
	br := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		long := err == bufio.ErrBufferFull
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			f(line)
		}
		for long { // pass over the rest
			_, err = br.ReadSlice('\n')
			long = err == bufio.ErrBufferFull
		}
		if err != nil {
			return err
		}
	}
}

// tail keeps the last lines of a process.
type tail struct {
	mu struct {
		sync.Mutex
		lines []string
	}
}

func (t *tail) add(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.mu.lines) == tailLines {
		t.mu.lines = slices.Delete(t.mu.lines, 0, 1)
	}
	t.mu.lines = append(t.mu.lines, string(line))
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.mu.lines, "\n")
}

// relay passes a line of a child on: one of its logger with its own level and attributes, any other one as information.
func relay(logger *slog.Logger, name string, line []byte) {
	who := slog.String("process", name)
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err == nil {
		text, isText := fields[slog.MessageKey].(string)
		var level slog.Level
		shown, _ := fields[slog.LevelKey].(string)
		if isText && level.UnmarshalText([]byte(shown)) == nil {
			attrs := []slog.Attr{who}
			for _, key := range slices.Sorted(maps.Keys(fields)) {
				if key != slog.MessageKey && key != slog.LevelKey && key != slog.TimeKey {
					attrs = append(attrs, slog.Any(key, fields[key]))
				}
			}
			logger.LogAttrs(context.Background(), level, text, attrs...)
			return
		}
	}
	logger.LogAttrs(context.Background(), slog.LevelInfo, string(line), who)
}

// levelOf is the lowest level that a logger takes.
func levelOf(logger *slog.Logger) slog.Level {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if logger.Enabled(context.Background(), level) {
			return level
		}
	}
	return slog.LevelError
}

// readReports reads what the child says of itself.
func (p *process) readReports(reports *os.File, listening func(string)) {
	_ = eachLine(reports, func(line []byte) { // its end, or a deadline
		var r report
		if err := json.Unmarshal(line, &r); err != nil {
			return // it died in the middle of a line
		}
		if r.Listening != "" {
			listening(r.Listening)
		}
		if r.Ended != nil {
			p.ended = r.Ended
		}
	})
}
