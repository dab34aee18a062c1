package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

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
	for i := range job.Plan.Vertices {
		v := &job.Plan.Vertices[i]
		if v.Source == nil || v.InputOf == nil || i >= len(read) {
			continue
		}
		splits, err := v.Source(ctx)
		if err != nil {
			return err
		}
		now, before := inputOf(v, splits), inputOf(v, read[i])
		fresh, gone := without(now, before), without(before, now)
		if len(fresh)+len(gone) > 0 {
			return fmt.Errorf("%w: of %q, %s", ErrOtherInput, v.Name, difference(fresh, gone))
		}
	}
	return nil
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
