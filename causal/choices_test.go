package causal_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	. "github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

type choice = determinant.Determinant

// script is a Proposer that proposes given headers in turn.
type script struct {
	steps []choice
	err   error
}

func (s *script) Propose() (choice, bool, error) {
	if s.err != nil || len(s.steps) == 0 {
		return choice{}, false, s.err
	}
	d := s.steps[0]
	s.steps = s.steps[1:]
	return d, true, nil
}

// story is what a task chose, headers, choices within, marks and skips.
func story() *rapid.Generator[[]choice] {
	one := rapid.Custom(func(t *rapid.T) choice {
		n := rapid.Uint64Range(0, 400).Draw(t, "n")
		small := uint32(n % 20)
		return rapid.SampledFrom([]choice{
			{Kind: determinant.KindInput, Channel: small, N: n},
			{Kind: determinant.KindSource, Split: small, N: n, Offset: n * n},
			{Kind: determinant.KindTimers, Time: int64(n)},
			{Kind: determinant.KindCheckpoint, Epoch: determinant.Epoch(n), Depth: determinant.Full},
			{Kind: determinant.KindSkipCheckpoint, Epoch: determinant.Epoch(n)},
			{Kind: determinant.KindAsync, Pending: small, Hash: n, Bytes: []byte("async")},
			{Kind: determinant.KindSplit, Split: small, Bytes: []byte("split")},
			{Kind: determinant.KindTime, Time: int64(n)},
			{Kind: determinant.KindRandom, Seed: n},
			{Kind: determinant.KindCall, Hash: n, Bytes: []byte("call")},
			{Kind: determinant.KindSkip, Channel: small, Seq: determinant.Seq(n)},
			{Kind: determinant.KindMark, Epoch: determinant.Epoch(n)},
		}).Draw(t, "choice")
	})
	return rapid.SliceOfN(one, 0, 60)
}

// perform asks c for each choice of the story and returns an error if it gives another.
func perform(c Choices, story []choice) error {
	for i := range story {
		want := story[i]
		var got choice
		var err error
		switch {
		case want.Kind == determinant.KindMark:
			got, err = want, c.Mark(want.Epoch)
		case want.Kind.Header():
			var ok bool
			if got, ok, err = c.Next(&script{steps: story[i : i+1 : i+1]}); err == nil && !ok {
				return fmt.Errorf("%d: no step", i)
			}
		default:
			got, err = c.Choose(want.Kind, func() choice { return want })
		}
		if err != nil {
			return fmt.Errorf("%d: %w", i, err)
		}
		if !reflect.DeepEqual(got, want) {
			return fmt.Errorf("%d: chose %v, want %v", i, &got, &want)
		}
	}
	return nil
}

func record(t interface{ Fatal(...any) }, base offset, story []choice) []byte {
	l := NewLog(base)
	if err := perform(NewRecorder(l, determinant.Encoder{}, Options{}), story); err != nil {
		t.Fatal(err)
	}
	log, err := l.Read(nil, base, l.End())
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestReplayAndGoOn replays the start of a story from a log that ends anywhere, goes on with a Recorder, and has the log that
// the whole story gives.
func TestReplayAndGoOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := story().Draw(t, "story")
		base := offset(rapid.Uint64Range(0, 10_000).Draw(t, "base"))
		cut := rapid.IntRange(0, len(whole)).Draw(t, "cut")
		known := record(t, base, whole[:cut])
		l := NewLog(base)
		if err := l.Merge(base, known, false); err != nil {
			t.Fatal(err)
		}
		r := NewReplayer(base, known)
		for i := range cut {
			if r.Done() {
				t.Fatalf("done after %d of %d", i, cut)
			}
			if err := perform(r, whole[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if !r.Done() || r.Offset() != l.End() {
			t.Fatalf("at %d, done %v, log ends at %d", r.Offset(), r.Done(), l.End())
		}
		recorder := r.Recorder(l, Options{})
		if err := perform(recorder, whole[cut:]); err != nil {
			t.Fatal(err)
		}
		got, _ := l.Read(nil, base, l.End())
		if want := record(t, base, whole); !bytes.Equal(got, want) || recorder.Offset() != l.End() || !l.Own() {
			t.Fatalf("log\n% x\nwant\n% x", got, want)
		}
	})
}

// Invariant: the header is in the log before Next returns, a choice before Choose does.
func TestRecorderLogsBeforeItReturns(t *testing.T) {
	l := NewLog(0)
	r := NewRecorder(l, determinant.Encoder{}, Options{})
	if _, ok, err := r.Next(&script{}); ok || err != nil || l.End() != 0 {
		t.Errorf("nothing to do: %v %v, log ends at %d", ok, err, l.End())
	}
	failed := errors.New("failed")
	if _, ok, err := r.Next(&script{err: failed}); ok || err != failed || l.End() != 0 {
		t.Errorf("failing: %v %v, log ends at %d", ok, err, l.End())
	}
	if _, ok, err := r.Next(&script{steps: []choice{{Kind: determinant.KindInput, N: 3}}}); !ok || err != nil || l.End() != 2 {
		t.Errorf("input: %v %v, log ends at %d", ok, err, l.End())
	}
	if _, err := r.Choose(determinant.KindTime, func() choice {
		return choice{Kind: determinant.KindTime, Time: 5}
	}); err != nil || l.End() != 3 {
		t.Errorf("time: %v, log ends at %d", err, l.End())
	}
}

func TestRecorderRefusesLongResults(t *testing.T) {
	l := NewLog(0)
	r := NewRecorder(l, determinant.Encoder{}, Options{})
	long := choice{Kind: determinant.KindCall, Bytes: make([]byte, determinant.MaxBytes+1)}
	_, err := r.Choose(determinant.KindCall, func() choice { return long })
	mustFail(t, err, ErrTooLong)
	long.Bytes = long.Bytes[:100_000]
	if _, err := r.Choose(determinant.KindCall, func() choice { return long }); err != nil || l.End() < 100_000 {
		t.Errorf("%v, log ends at %d", err, l.End())
	}
}

func TestWrongProposalsAreBugs(t *testing.T) {
	for what, f := range map[string]func(c Choices){
		"header": func(c Choices) { _, _, _ = c.Next(&script{steps: []choice{{Kind: determinant.KindTime}}}) },
		"choice": func(c Choices) {
			_, _ = c.Choose(determinant.KindTime, func() choice { return choice{Kind: determinant.KindCall} })
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: taken", what)
				}
			}()
			f(NewRecorder(NewLog(0), determinant.Encoder{}, Options{}))
		}()
	}
}

func TestSwappingTooEarlyIsABug(t *testing.T) {
	log := record(t, 0, []choice{{Kind: determinant.KindMark, Epoch: 1}})
	for what, l := range map[string]*Log{"not done": NewLog(2), "other end": NewLog(3)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: swapped", what)
				}
			}()
			r := NewReplayer(0, log)
			if what == "other end" {
				if err := r.Mark(1); err != nil {
					t.Fatal(err)
				}
			}
			r.Recorder(l, Options{})
		}()
	}
}

func TestDivergence(t *testing.T) {
	input := choice{Kind: determinant.KindInput, Channel: 1, N: 2}
	clock := choice{Kind: determinant.KindTime, Time: 3}
	mark := choice{Kind: determinant.KindMark, Epoch: 4}
	skip := choice{Kind: determinant.KindSkip, Channel: 1, Seq: 9}
	for _, c := range []struct {
		log           choice
		ask           func(r *Replayer) error
		expected, got string
	}{
		{clock, next, "time time=3", "a new step"},
		{mark, next, "mark epoch=4", "a new step"},
		{skip, next, "skip channel=1 seq=9", "a new step"},
		{input, choose(determinant.KindTime), "input channel=1 n=2", "time"},
		{clock, choose(determinant.KindRandom), "time time=3", "random"},
		{mark, choose(determinant.KindCall), "mark epoch=4", "call"},
		{input, func(r *Replayer) error { return r.Mark(4) }, "input channel=1 n=2", "mark epoch=4"},
		{mark, func(r *Replayer) error { return r.Mark(5) }, "mark epoch=4", "mark epoch=5"},
	} {
		past := []choice{{Kind: determinant.KindMark, Epoch: 3}}
		for i := range uint64(20) {
			past = append(past, choice{Kind: determinant.KindInput, N: i})
		}
		r := NewReplayer(1000, record(t, 1000, append(past, c.log)))
		if err := perform(r, past); err != nil {
			t.Fatal(err)
		}
		for range 2 { // asking again changes nothing
			err := c.ask(r)
			var d *Divergence
			if !errors.As(err, &d) || !errors.Is(err, ErrDivergence) {
				t.Fatalf("error %v", err)
			}
			want := Divergence{Epoch: 3, Step: 20, Offset: 1042, Expected: c.expected, Got: c.got, Last: d.Last}
			if !reflect.DeepEqual(*d, want) || len(d.Last) != 16 || d.Last[15] != "1040: input channel=0 n=19" {
				t.Errorf("divergence %+v, want %+v", *d, want)
			}
			if r.Done() || r.Offset() != 1042 {
				t.Errorf("offset %d", r.Offset())
			}
		}
	}
}

func next(r *Replayer) error {
	_, _, err := r.Next(nil)
	return err
}

func choose(k determinant.Kind) func(r *Replayer) error {
	return func(r *Replayer) error {
		_, err := r.Choose(k, nil)
		return err
	}
}

func TestDivergedIsAboutTheLatestChoice(t *testing.T) {
	story := []choice{
		{Kind: determinant.KindInput, N: 1},
		{Kind: determinant.KindCall, Hash: 7, Bytes: []byte("answer")},
	}
	r := NewReplayer(0, record(t, 0, story))
	if d := r.Diverged("something"); d.Expected != "nothing" || d.Got != "something" {
		t.Errorf("%+v", d)
	}
	if err := perform(r, story); err != nil {
		t.Fatal(err)
	}
	d := r.Diverged("call hash=0000000000000008")
	if d.Offset != 2 || d.Step != 1 || d.Expected != story[1].String() || len(d.Last) != 1 {
		t.Errorf("%+v", d)
	}
	d.Task, d.Vertex = 3, "enrich"
	if text := d.Error(); !strings.Contains(text, "task 3 (enrich), epoch 0, step 1, log offset 2") ||
		!strings.HasSuffix(text, "\n\tafter 0: input channel=0 n=1") {
		t.Error(text)
	}
}

func TestReplayerAtTheEnd(t *testing.T) {
	r := NewReplayer(7, nil)
	if !r.Done() || r.Offset() != 7 || r.PeekSkip(0, 0, false) {
		t.Error("not done")
	}
	mustFail(t, next(r), ErrDone)
	mustFail(t, choose(determinant.KindTime)(r), ErrDone)
	mustFail(t, r.Mark(1), ErrDone)
}

func TestReplayerOfADamagedLog(t *testing.T) {
	for what, c := range map[string]struct {
		log []byte
		err error
	}{
		"torn":    {[]byte{0x01}, determinant.ErrShort},
		"corrupt": {[]byte{0x00}, determinant.ErrCorrupt},
	} {
		r := NewReplayer(0, c.log)
		if r.Done() || r.PeekSkip(0, 0, false) {
			t.Error(what)
		}
		mustFail(t, next(r), c.err)
		mustFail(t, choose(determinant.KindTime)(r), c.err)
		mustFail(t, r.Mark(1), c.err)
	}
}

func TestPeekSkip(t *testing.T) {
	story := []choice{
		{Kind: determinant.KindInput, Channel: 1, N: 3},
		{Kind: determinant.KindTime, Time: 8},
		{Kind: determinant.KindSkip, Channel: 1, Seq: 41},
		{Kind: determinant.KindSkip, Channel: 1, Seq: 42, Failed: true},
	}
	r := NewReplayer(0, record(t, 0, story))
	if r.PeekSkip(1, 41, false) {
		t.Error("skipped before the step")
	}
	if err := perform(r, story[:1]); err != nil {
		t.Fatal(err)
	}
	if r.PeekSkip(1, 41, false) {
		t.Error("skipped before what the record chose")
	}
	if err := perform(r, story[1:2]); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		channel uint32
		seq     determinant.Seq
		failed  bool
		skip    bool
	}{
		{1, 40, false, false}, {0, 41, false, false}, {1, 41, true, false}, {1, 41, false, true}, {1, 41, false, false},
		{1, 42, false, false}, {1, 42, true, true}, {1, 43, false, false},
	} {
		if got := r.PeekSkip(c.channel, c.seq, c.failed); got != c.skip {
			t.Errorf("(%d, %d, %v): %v", c.channel, c.seq, c.failed, got)
		}
	}
	if !r.Done() {
		t.Error("not done")
	}
}

func TestUnlogged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := &Unlogged{At: 99}
		if err := perform(u, story().Draw(t, "story")); err != nil || u.Offset() != 99 {
			t.Fatalf("%v, offset %d", err, u.Offset())
		}
	})
}

func TestHeadersOmitted(t *testing.T) {
	story := []choice{
		{Kind: determinant.KindMark, Epoch: 1},
		{Kind: determinant.KindInput, N: 1},
		{Kind: determinant.KindTime, Time: 2},
		{Kind: determinant.KindTimers, Time: 3},
		{Kind: determinant.KindInput, N: 4},
	}
	l := NewLog(0)
	if err := perform(NewRecorder(l, determinant.Encoder{}, Options{Mutations: mutation.HeaderOmitted}), story); err != nil {
		t.Fatal(err)
	}
	got, _ := l.Read(nil, 0, l.End())
	if want := record(t, 0, []choice{story[0], story[2], story[3]}); !bytes.Equal(got, want) {
		t.Errorf("log % x, want % x", got, want)
	}
}

func TestHeadersLate(t *testing.T) {
	story := []choice{
		{Kind: determinant.KindMark, Epoch: 1},
		{Kind: determinant.KindInput, N: 1},
		{Kind: determinant.KindTime, Time: 2},
		{Kind: determinant.KindInput, N: 3},
		{Kind: determinant.KindMark, Epoch: 2},
	}
	ends := []offset{2, 2, 2, 5, 9} // of the log after each
	l := NewLog(0)
	r := NewRecorder(l, determinant.Encoder{}, Options{Mutations: mutation.HeaderLate})
	for i := range story {
		if err := perform(r, story[i:i+1]); err != nil {
			t.Fatal(err)
		}
		if l.End() != ends[i] || r.Offset() != offset(len(record(t, 0, story[:i+1]))) {
			t.Errorf("after %v the log ends at %d, want %d; the task is at %d", &story[i], l.End(), ends[i], r.Offset())
		}
	}
	got, _ := l.Read(nil, 0, l.End())
	if want := record(t, 0, story); !bytes.Equal(got, want) {
		t.Errorf("log % x, want % x", got, want)
	}
}

// endless is a Proposer that always has an input.
type endless struct{ d choice }

func (e *endless) Propose() (choice, bool, error) { return e.d, true, nil }

func TestRecorderDoesNotAllocate(t *testing.T) {
	l := NewLog(0)
	r := NewRecorder(l, determinant.Encoder{}, Options{})
	p := &endless{choice{Kind: determinant.KindInput, Channel: 2, N: 100}}
	now := choice{Kind: determinant.KindTime}
	clock := func() choice { now.Time += 20; return now }
	if n := testing.AllocsPerRun(1000, func() {
		_, _, _ = r.Next(p)
		_, _ = r.Choose(determinant.KindTime, clock)
	}); n > 0.1 { // a segment now and then
		t.Errorf("%v allocations per step", n)
	}
}

func BenchmarkRecorder(b *testing.B) {
	p := &endless{choice{Kind: determinant.KindInput, Channel: 2, N: 100}}
	now := choice{Kind: determinant.KindTime}
	clock := func() choice { now.Time += 20; return now }
	for _, c := range []struct {
		name string
		step func(c Choices)
	}{
		{"next", func(c Choices) { _, _, _ = c.Next(p) }},
		{"next+time", func(c Choices) { _, _, _ = c.Next(p); _, _ = c.Choose(determinant.KindTime, clock) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := NewLog(0)
			r := NewRecorder(l, determinant.Encoder{}, Options{})
			b.ReportAllocs()
			for b.Loop() {
				c.step(r)
				if l.Bytes() > 1<<20 {
					l.Truncate(l.End())
				}
			}
		})
	}
}

func BenchmarkReplayer(b *testing.B) {
	var story []choice
	for i := range uint64(5000) {
		story = append(story, choice{Kind: determinant.KindInput, Channel: uint32(i % 4), N: i},
			choice{Kind: determinant.KindTime, Time: int64(i * 20)})
	}
	log := record(b, 0, story)
	r := NewReplayer(0, log)
	b.ReportAllocs()
	for b.Loop() {
		if r.Done() {
			r = NewReplayer(0, log)
		}
		_, _, err := r.Next(nil)
		if err == nil {
			_, err = r.Choose(determinant.KindTime, nil)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func TestStepOver(t *testing.T) {
	story := []choice{
		{Kind: determinant.KindSource, Split: 1, N: 3, Offset: 7},
		{Kind: determinant.KindTime, Time: 8},
		{Kind: determinant.KindSource, Split: 1, N: 2, Offset: 10},
	}
	r := NewReplayer(0, record(t, 0, story))
	for i, want := range []bool{false, true, false} { // a choice is left, none is, nobody knows
		if err := perform(r, story[i:i+1]); err != nil {
			t.Fatal(err)
		}
		if got := r.StepOver(); got != want {
			t.Errorf("after choice %d: %v", i, got)
		}
	}
}
