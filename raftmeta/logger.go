package raftmeta

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// levelTrace is below slog's lowest.
const levelTrace = slog.LevelDebug - 4

// logger is a slog.Logger as the library wants it.
type logger struct {
	to      *slog.Logger
	name    string
	implied []any
	repeats *repeats // shared by all that were made from one
	alone   bool     // the node has no peers
}

func newLogger(to *slog.Logger, alone bool) hclog.Logger {
	return &logger{to: to, repeats: &repeats{}, alone: alone}
}

// missedHeartbeat is how the library warns of a silent leader. A node alone begins each time by missing one, and leads.
const missedHeartbeat = "heartbeat timeout reached, starting election"

func levelOf(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace:
		return levelTrace
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	}
	return slog.LevelInfo
}

func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	if level == hclog.Off || !l.enabled(level) {
		return
	}
	args = readable(args)
	if l.alone && msg == missedHeartbeat {
		level = hclog.Debug
	}
	if level >= hclog.Warn {
		show, leftOut := l.repeats.first(msg, args, time.Now())
		if !show {
			return
		}
		if leftOut > 0 {
			args = append(args, "left_out", leftOut)
		}
	}
	l.to.Log(context.Background(), levelOf(level), msg, args...)
}

// readable makes text of the values that the library formats only when they are shown.
func readable(args []any) []any {
	out := make([]any, 0, len(args))
	for _, a := range args {
		switch v := a.(type) {
		case hclog.Format:
			if format, ok := v[0].(string); ok && len(v) > 0 {
				a = fmt.Sprintf(format, v[1:]...)
			}
		case fmt.Stringer:
			a = v.String()
		case error:
			a = v.Error()
		}
		out = append(out, a)
	}
	return out
}

func (l *logger) enabled(level hclog.Level) bool {
	return l.to.Enabled(context.Background(), levelOf(level))
}

func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *logger) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *logger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *logger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *logger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *logger) IsError() bool { return l.enabled(hclog.Error) }

func (l *logger) ImpliedArgs() []any { return l.implied }

func (l *logger) With(args ...any) hclog.Logger {
	args = readable(args)
	return &logger{to: l.to.With(args...), name: l.name, repeats: l.repeats, alone: l.alone, implied: append(l.implied[:len(l.implied):len(l.implied)], args...)}
}

func (l *logger) Name() string { return l.name }

func (l *logger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

func (l *logger) ResetNamed(name string) hclog.Logger {
	return &logger{to: l.to, name: name, repeats: l.repeats, alone: l.alone, implied: l.implied}
}

// SetLevel does nothing: the slog.Logger decides.
func (l *logger) SetLevel(hclog.Level) {}

// GetLevel returns the lowest level that is shown.
func (l *logger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

func (l *logger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(o), "", 0)
}

func (l *logger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineWriter{l} }

// lineWriter shows each line that is written.
type lineWriter struct {
	logger *logger
}

func (w lineWriter) Write(p []byte) (int, error) {
	w.logger.Info(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
