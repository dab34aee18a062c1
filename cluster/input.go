package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// ErrOtherInput says that a job has processed all the input that it was given when it began, and is now given other input.
var ErrOtherInput = errors.New("cluster: the job is complete, and was given other input than this")

// inputOf names the input of a source whose splits are these; nil if that source cannot tell.
func inputOf(v *operator.Vertex, splits []string) []string {
	if v.InputOf == nil {
		return nil
	}
	names := make([]string, len(splits))
	for i, split := range splits {
		names[i] = v.InputOf(split)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkInput compares what there is to read now with the splits that a complete job has read.
func checkInput(ctx context.Context, job *Job, read [][]string) error {
	other, err := otherInput(ctx, job, read, func(*operator.Vertex) bool { return true })
	if err == nil && other != "" {
		err = fmt.Errorf("%w: %s", ErrOtherInput, other)
	}
	return err
}

const (
	// LookTime bounds how long a job that is under way looks for other input. It goes on without knowing if a server does not answer.
	LookTime = 2 * time.Second
	// OtherInputNow is what it says if there is some.
	OtherInputNow = "the job goes on with the input that it began with, and there is other input now"
)

// warnOfInput says if there is other input now than that which an unfinished job has begun with, and goes on with. It is no error: what was read to its
// end may be gone, and what has come since may be for the next job.
func warnOfInput(ctx context.Context, job *Job, has [][]string, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, LookTime)
	defer cancel()
	other, err := otherInput(ctx, job, has, func(v *operator.Vertex) bool { return v.Growing == nil })
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		other = err.Error()
	}
	if other != "" {
		logger.Warn(OtherInputNow, "input", other)
	}
}

// otherInput tells how what there is to read now differs from what there was, of one of the sources that can tell and count; empty if it does not.
func otherInput(ctx context.Context, job *Job, was [][]string, counts func(*operator.Vertex) bool) (string, error) {
	for i := range job.Plan.Vertices {
		v := &job.Plan.Vertices[i]
		if v.Source == nil || v.InputOf == nil || i >= len(was) || !counts(v) {
			continue
		}
		splits, err := v.Source(ctx)
		if err != nil {
			return "", err
		}
		now, before := inputOf(v, splits), inputOf(v, was[i])
		fresh, gone := without(now, before), without(before, now)
		if len(fresh)+len(gone) > 0 {
			return fmt.Sprintf("of %q, %s", v.Name, difference(fresh, gone)), nil
		}
	}
	return "", nil
}

// without lists what is in a and not in b, which is sorted.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(name string) bool {
		_, found := slices.BinarySearch(b, name)
		return found
	})
}

// difference names the first of what was not there before and of what is not there now.
func difference(fresh, gone []string) string {
	var parts []string
	for _, d := range []struct {
		names []string
		what  string
	}{{fresh, "new"}, {gone, "gone"}} {
		switch n := len(d.names); {
		case n == 1:
			parts = append(parts, fmt.Sprintf("%s is %s", d.names[0], d.what))
		case n > 1:
			parts = append(parts, fmt.Sprintf("%s and %d more are %s", d.names[0], n-1, d.what))
		}
	}
	return strings.Join(parts, "; ")
}

// InputDigest tells one input of a job from another; empty if none of its sources can. What a source that grows reads is not known
// before it has ended.
func InputDigest(ctx context.Context, plan *operator.Plan) (string, error) {
	digest, known := sha256.New(), false
	for i := range plan.Vertices {
		v := &plan.Vertices[i]
		if v.Source == nil || v.InputOf == nil || v.Growing != nil {
			continue
		}
		splits, err := v.Source(ctx)
		if err != nil {
			return "", err
		}
		known = true
		for _, name := range inputOf(v, splits) {
			fmt.Fprintf(digest, "%d %q\n", i, name)
		}
	}
	if !known {
		return "", nil
	}
	return fmt.Sprintf("%x", digest.Sum(nil)), nil
}
