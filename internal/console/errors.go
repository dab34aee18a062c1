package console

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/transport"
)

// Exit codes.
const (
	ExitDone        = 0
	ExitFailed      = 1   // the job failed, or what was asked for cannot be
	ExitUsage       = 2   // unusable arguments
	ExitUnreachable = 3   // no coordinator leads, or none can be reached
	ExitInterrupted = 130 // the same command goes on
)

// UsageError is an error of the arguments.
type UsageError struct{ Err error }

// Error is that of the argument.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the error of the argument.
func (e *UsageError) Unwrap() error { return e.Err }

func usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Code is the exit code for an error.
func Code(err error) int {
	var wrong *UsageError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &wrong):
		return ExitUsage
	case errors.Is(err, context.Canceled), errors.Is(err, supervisor.ErrAborted), errors.Is(err, supervisor.ErrStopped):
		return ExitInterrupted
	case errors.Is(err, cluster.ErrNoLeader):
		return ExitUnreachable
	}
	return ExitFailed
}

// plain are sentences for what goes wrong often.
var plain = []struct {
	is   error
	text string
}{
	{transport.ErrSecret, "the cluster has another secret"},
	{transport.ErrTLS, "no TLS connection can be made: one side uses TLS and the other does not, or a certificate is not good"},
	{transport.ErrVersion, "the cluster runs another version of this program's protocol"},
	{transport.ErrStranger, "what answers there is no process of a cluster"},
	{syscall.EADDRINUSE, "the address to listen on is in use by another process"},
	{cluster.ErrOtherBuild, "this is another build of the program than the one that runs the job"},
	{cluster.ErrNoLeader, "no coordinator leads: most of them must be running and able to reach each other"},
	{context.Canceled, "interrupted; the same command continues"},
	{supervisor.ErrAborted, "killed; the same command continues"},
	{supervisor.ErrStopped, "the cluster was told to stop; the same command continues"},
	{fs.ErrPermission, "a file or directory may not be used by this user"},
}

// packages are the names that stand before errors.
var packages = []string{"understudy", "cluster", "supervisor", "transport", "raftmeta", "checkpoint", "operator", "file"}

// Sentence says what went wrong in plain words, with the details behind.
func Sentence(err error) string {
	detail := bare(err.Error())
	for _, p := range plain {
		if !errors.Is(err, p.is) {
			continue
		}
		if Code(err) == ExitInterrupted {
			return p.text
		}
		detail = strings.TrimPrefix(detail, bare(p.is.Error()))
		if detail = strings.TrimPrefix(detail, ": "); detail == "" {
			return p.text
		}
		return p.text + " (" + detail + ")"
	}
	return detail
}

// bare takes the names of packages out of an error's text.
func bare(text string) string {
	for _, name := range packages {
		text = strings.ReplaceAll(strings.TrimPrefix(text, name+": "), ": "+name+": ", ": ")
	}
	for _, name := range packages { // one that stood behind another
		text = strings.TrimPrefix(text, name+": ")
	}
	return text
}
