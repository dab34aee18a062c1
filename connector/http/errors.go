package http

import (
	"errors"

	"github.com/understudy-stream/understudy/operator"
)

// Errors that a caller may branch on. ErrAccess is another.
var (
	// ErrInUse is returned when another process uses the directory of a server or of a webhook.
	ErrInUse = errors.New("http: the directory is in use")
	// ErrCorrupt is returned when what is on disk is not what was written.
	ErrCorrupt = permanent("http: corrupt file")
	// ErrDiverged is returned when a log and its copy hold different requests at the same place.
	ErrDiverged = permanent("http: a log and its copy have diverged")
	// ErrReplaced is returned to the owner of a log when a later owner of the same log has come.
	ErrReplaced = errors.New("http: the log has a later owner")
	// ErrTruncated is returned when a log is read at an offset that it no longer holds.
	ErrTruncated = permanent("http: the log no longer holds the offset")
	// ErrOffset is returned when a log is read at an offset that it never gave.
	ErrOffset = permanent("http: the log does not reach the offset")
	// ErrUnknownLog is returned when a server is asked for a log that it does not keep: the lists of servers differ.
	ErrUnknownLog = permanent("http: the server does not keep the log")
	// ErrRefused is returned when a webhook's receiver refuses records for good.
	ErrRefused = permanent("http: the receiver refuses")
	// ErrJob is returned when a webhook's directory belongs to another job, or to another webhook of this one.
	ErrJob = permanent("http: the directory belongs to another job")
	// ErrUnfenced is returned when a webhook's store is written to before its fence is raised.
	ErrUnfenced = errors.New("http: the store is not fenced for the writer")
	// ErrGap is returned when a write does not continue the output.
	ErrGap = errors.New("http: the write does not continue the output")
)

// permanentError is an error that no other try can mend.
type permanentError struct{ text string }

func permanent(text string) error { return permanentError{text} }

func (e permanentError) Error() string        { return e.text }
func (e permanentError) Is(target error) bool { return target == operator.ErrPermanent }
