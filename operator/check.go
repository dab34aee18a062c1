package operator

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// checkRounds is how often the checks repeat an encoding: Go shuffles a map anew each time.
const checkRounds = 16

// CheckDeterministic is for a test of a codec. It tells whether each value always gives the same bytes, also when it is
// appended to others and after it was decoded.
func CheckDeterministic[T any](c Codec[T], values ...T) error {
	for i, v := range values {
		first, err := c.Append(nil, v)
		if err != nil {
			return fmt.Errorf("operator: value %d: encoding: %w", i, err)
		}
		first = bytes.Clone(first)
		for range checkRounds {
			prefix := []byte("prefix")
			again, err := c.Append(prefix, v)
			if err != nil {
				return fmt.Errorf("operator: value %d: encoding again: %w", i, err)
			}
			if !bytes.Equal(again, append([]byte("prefix"), first...)) {
				return fmt.Errorf("operator: value %d: encoded as %q, and then, after \"prefix\", as %q", i, first, again)
			}
			back, err := c.Decode(first)
			if err != nil {
				return fmt.Errorf("operator: value %d: decoding %q: %w", i, first, err)
			}
			again, err = c.Append(nil, back)
			if err != nil {
				return fmt.Errorf("operator: value %d: encoding what was decoded: %w", i, err)
			}
			if !bytes.Equal(again, first) {
				return fmt.Errorf("operator: value %d: encoded as %q, decoded, and then encoded as %q", i, first, again)
			}
		}
	}
	return nil
}

// CheckFunction is for a test of a user's function. It runs f on the inputs several times in contexts that give the same
// answers, as a replay does, and tells whether it did the same every time. An error of f is an outcome like others.
func CheckFunction[I, O any](f func(ctx Context, v I, emit func(O)) error, c Codec[O], inputs ...I) error {
	var answers []callAnswer
	var first [][]byte
	for round := range checkRounds {
		ctx := &checkContext{rng: rand.New(rand.NewPCG(1, 1)), answers: answers, replay: round > 0}
		var outcome [][]byte
		for _, v := range inputs {
			var encoding error
			err := f(ctx, v, func(o O) {
				b, err := c.Append(nil, o)
				if encoding == nil {
					encoding = err
				}
				outcome = append(outcome, b)
			})
			if encoding != nil {
				return fmt.Errorf("operator: encoding output: %w", encoding)
			}
			if err != nil {
				outcome = append(outcome, []byte("error: "+err.Error()))
			}
			if ctx.err != nil {
				return ctx.err
			}
			ctx.now++
		}
		if round == 0 {
			first, answers = outcome, ctx.answers
			continue
		}
		if err := sameOutcome(first, outcome); err != nil {
			return err
		}
	}
	return nil
}

func sameOutcome(first, again [][]byte) error {
	for i := range max(len(first), len(again)) {
		switch {
		case i >= len(first):
			return fmt.Errorf("operator: output %d is %q when run again, and was not there before", i, again[i])
		case i >= len(again):
			return fmt.Errorf("operator: output %d was %q, and is not there when run again", i, first[i])
		case !bytes.Equal(first[i], again[i]):
			return fmt.Errorf("operator: output %d was %q, and is %q when run again", i, first[i], again[i])
		}
	}
	return nil
}

type callAnswer struct {
	request, result []byte
	err             error
}

// checkContext is a Context that gives the same answers in every round.
type checkContext struct {
	now     int64
	rng     *rand.Rand
	answers []callAnswer
	replay  bool
	calls   int
	err     error
}

func (c *checkContext) Now() time.Time               { return time.UnixMilli(c.now).UTC() }
func (c *checkContext) Rand() *rand.Rand             { return c.rng }
func (c *checkContext) EventTime() (time.Time, bool) { return time.UnixMilli(c.now).UTC(), true }
func (c *checkContext) Watermark() (time.Time, bool) { return time.Time{}, false }
func (c *checkContext) Task() TaskInfo               { return TaskInfo{Vertex: "check", Parallelism: 1} }

func (c *checkContext) Call(request []byte, f func(context.Context, []byte) ([]byte, error)) ([]byte, error) {
	if !c.replay {
		result, err := f(context.Background(), request)
		c.answers = append(c.answers, callAnswer{bytes.Clone(request), result, err})
		return result, err
	}
	k := c.calls
	c.calls++
	if k >= len(c.answers) || !bytes.Equal(c.answers[k].request, request) {
		c.err = fmt.Errorf("operator: call %d asks %q when run again, which it did not before", k, request)
		return nil, c.err
	}
	return c.answers[k].result, c.answers[k].err
}
