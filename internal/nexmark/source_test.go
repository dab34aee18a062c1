package nexmark

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/operator"
)

// read reads a split from an offset to its end, and gives the offsets too.
func read(t testing.TB, s *Source, split string, offset uint64) (events []Event, offsets []uint64) {
	t.Helper()
	r, err := s.Open(context.Background(), split, offset)
	require.NoError(t, err)
	defer r.Close()
	require.Nil(t, r.Ready())
	for {
		e, next, err := r.Next()
		if err == io.EOF {
			return events, offsets
		}
		require.NoError(t, err)
		events, offsets = append(events, e), append(offsets, next)
	}
}

func open(t testing.TB, o SourceOptions) (*Source, []string) {
	t.Helper()
	s, err := NewSource(o)
	require.NoError(t, err)
	splits, err := s.Splits(context.Background())
	require.NoError(t, err)
	return s, splits
}

func TestSplitsAreTheStream(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 40} {
		for _, total := range []int{1, 49, 50, 51, 1234} {
			want := stream(t, Config{Group: 30}, 0, total, 100)
			s, splits := open(t, SourceOptions{Events: uint64(total), Group: 30, Splits: n})
			require.Len(t, splits, n)
			seen := make([]bool, total)
			for _, split := range splits {
				events, _ := read(t, s, split, 0)
				for i, e := range events {
					require.False(t, seen[e.Number])
					seen[e.Number] = true
					require.Equal(t, want[e.Number], e)
					require.True(t, i == 0 || events[i-1].Number < e.Number)
				}
			}
			require.NotContains(t, seen, false, "%d events in %d splits", total, n)
		}
	}
}

func TestSplitIsReadAgainFromAnyOffset(t *testing.T) {
	s, splits := open(t, SourceOptions{Events: 1000, Splits: 3, EventRate: 500, Group: 13})
	for _, split := range splits {
		events, offsets := read(t, s, split, 0)
		for i, offset := range offsets {
			rest, after := read(t, s, split, offset)
			require.Equal(t, events[i+1:], append([]Event{}, rest...))
			require.Equal(t, offsets[i+1:], append([]uint64{}, after...))
		}
	}
}

// A source has one task per split, whatever the job's parallelism is.
func TestSourceHasATaskPerSplit(t *testing.T) {
	s, _ := open(t, SourceOptions{Events: 10, Splits: 3})
	job := operator.NewJob("job")
	operator.ForEach(s.From(job, "events"), "end", func(operator.Context, Event) error { return nil })
	plan, err := job.Plan(5)
	require.NoError(t, err)
	require.Equal(t, "events -> events time", plan.Vertices[0].Name)
	require.Equal(t, 3, plan.Vertices[0].Parallelism)
}

// No event is later than the watermark that the times before it make.
func TestDisorderIsBounded(t *testing.T) {
	for _, c := range []Config{{}, {Group: 2}, {Rate: 7, Group: 100}, {Rate: 1000, Group: 60}, {Rate: 999999, Group: 952}} {
		c.EnsureDefaults()
		var greatest, most int64
		for _, e := range stream(t, c, 0, 20000, 1000) {
			greatest = max(greatest, e.Time())
			most = max(most, greatest-e.Time())
		}
		require.LessOrEqual(t, most, c.disorder(), "%+v", c)
		require.LessOrEqual(t, c.disorder(), 2*most+2, "%+v", c)
	}
}

func TestSourceOptions(t *testing.T) {
	for want, o := range map[string]SourceOptions{
		"-1 splits":            {Splits: -1},
		"1000001 events":       {EventRate: 1000001},
		"no multiple of 953":   {Group: 1906},
		"need a rate":          {Pacing: WallPacing},
		"the start -5":         {Start: -5, Rate: 1},
		"pacing 7":             {Pacing: 7},
		"2000000000 events":    {Rate: 2e9},
		"70000 splits":         {Splits: 70000},
		"groups of 3000000000": {Group: 3e9},
	} {
		_, err := NewSource(o)
		require.ErrorContains(t, err, want)
	}
	_, err := NewGenerator(Config{Base: -1})
	require.ErrorContains(t, err, "before 1970")
	for text, want := range map[string]Pacing{"event": EventPacing, "wall": WallPacing} {
		p, err := ParsePacing(text)
		require.NoError(t, err)
		require.Equal(t, want, p)
	}
	_, err = ParsePacing("sun")
	require.ErrorContains(t, err, `"sun"`)
}

// clocked is a source at a time of its own.
func clocked(t testing.TB, o SourceOptions) (s *Source, splits []string, now *time.Time) {
	t.Helper()
	now = new(time.Time)
	*now = time.UnixMilli(1700000000000)
	s, err := NewSource(o)
	require.NoError(t, err)
	s.clock = func() time.Time { return *now }
	splits, err = s.Splits(context.Background())
	require.NoError(t, err)
	return s, splits, now
}

// drain reads what is due.
func drain(t testing.TB, r operator.Reader[Event]) (events []Event, err error) {
	t.Helper()
	for {
		e, _, err := r.Next()
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

func TestPacedSplitGivesWhatIsDue(t *testing.T) {
	for _, pacing := range []Pacing{EventPacing, WallPacing} {
		s, splits, now := clocked(t, SourceOptions{Events: 500, Splits: 2, Rate: 1000, Pacing: pacing})
		r, err := s.Open(context.Background(), splits[1], 0)
		require.NoError(t, err)
		events, err := drain(t, r)
		require.ErrorIs(t, err, operator.ErrNotReady)
		require.Empty(t, events, "the first event of the split is number 50")
		*now = now.Add(51 * time.Millisecond)
		events, err = drain(t, r)
		require.ErrorIs(t, err, operator.ErrNotReady)
		require.Len(t, events, 2)
		if pacing == WallPacing {
			require.Equal(t, now.UnixMilli(), events[1].Time())
		} else {
			require.EqualValues(t, DefaultBase+5, events[1].Time())
		}
		<-r.Ready() // by then the true clock has gone on, this one has not
		_, err = drain(t, r)
		require.ErrorIs(t, err, operator.ErrNotReady)
		*now = now.Add(time.Hour)
		events, err = drain(t, r)
		require.ErrorIs(t, err, io.EOF)
		require.Len(t, events, 248)
		require.NoError(t, r.Close())

		*now = now.Add(-time.Hour) // the same events at the same times to a successor
		r, err = s.Open(context.Background(), splits[1], 51)
		require.NoError(t, err)
		again, err := drain(t, r)
		require.True(t, errors.Is(err, operator.ErrNotReady))
		require.Equal(t, events[:0], again[:0])
		require.Len(t, again, 1)
		require.NoError(t, r.Close())
	}
}

// With wall pacing an auction lasts as long as it does in Beam's stream.
func TestWallPacingMovesEvents(t *testing.T) {
	s, splits, now := clocked(t, SourceOptions{Events: 1000, Rate: 10000, Pacing: WallPacing})
	*now = now.Add(time.Hour)
	r, err := s.Open(context.Background(), splits[0], 0)
	require.NoError(t, err)
	defer r.Close()
	events, err := drain(t, r)
	require.ErrorIs(t, err, io.EOF)
	start := now.Add(-time.Hour).UnixMilli()
	for i, want := range stream(t, Config{}, 0, 1000, 1000) {
		shift := start - DefaultBase
		switch want.Kind {
		case PersonKind:
			want.Person.Time += shift
		case AuctionKind:
			want.Auction.Time += shift
			want.Auction.Expires += shift
		default:
			want.Bid.Time += shift
		}
		require.Equal(t, want, events[i])
	}
}

func TestDueAndDueByAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 10000 {
		s := split{Rate: 1 + rng.Uint64N(1<<rng.UintN(30))}
		n := rng.Uint64N(1 << rng.UintN(40))
		if n/s.Rate > 1e8 {
			continue // beyond three years
		}
		due := s.due(n)
		require.LessOrEqual(t, s.dueBy(due-1), n, "%d per second, event %d", s.Rate, n)
		require.Greater(t, s.dueBy(due+1), n, "%d per second, event %d", s.Rate, n)
	}
}

func FuzzParseSplit(f *testing.F) {
	s, splits, _ := clocked(f, SourceOptions{Events: 9, Rate: 3, Splits: 2})
	for _, text := range append(splits, "", "{}", `{"nexmark":1}`, `{"nexmark":3,"of":2}`) {
		f.Add(text, uint64(4))
	}
	f.Fuzz(func(t *testing.T, text string, offset uint64) {
		sp, err := parseSplit(text)
		if err != nil {
			return
		}
		require.Equal(t, text, sp.String())
		r, err := s.Open(context.Background(), text, min(offset, math.MaxInt64))
		require.NoError(t, err)
		defer r.Close()
		if _, _, err = r.Next(); err != nil {
			require.True(t, err == io.EOF || err == operator.ErrNotReady)
		}
	})
}

// What came due before the job began comes at once.
func TestStartInThePast(t *testing.T) {
	s, err := NewSource(SourceOptions{Events: 1000, Rate: 1000, Start: 1700000000000})
	require.NoError(t, err)
	now := time.UnixMilli(1700000000300)
	s.clock = func() time.Time { return now }
	splits, err := s.Splits(context.Background())
	require.NoError(t, err)
	r, err := s.Open(context.Background(), splits[0], 0)
	require.NoError(t, err)
	defer r.Close()
	events, err := drain(t, r)
	require.ErrorIs(t, err, operator.ErrNotReady)
	require.Len(t, events, 301)
}

// Whoever measures is told when each split is opened and when it is used up.
func TestSplitsTellOfTheirUse(t *testing.T) {
	s, splits := open(t, SourceOptions{Events: 200, Splits: 2})
	var opened, used int
	s.opened, s.used = func() { opened++ }, func() { used++ }
	for i, split := range splits {
		r, err := s.Open(context.Background(), split, 0)
		require.NoError(t, err)
		require.Equal(t, i+1, opened)
		require.Equal(t, i, used)
		_, err = drain(t, r)
		require.ErrorIs(t, err, io.EOF)
		_, _, err = r.Next()
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, i+1, used)
		require.NoError(t, r.Close())
	}
}

// A stream that is said to be over ends before the event that was said, in each split, and when it is read again.
func TestOverEndsSplits(t *testing.T) {
	all := stream(t, Config{}, 0, 1234, 100)
	s, splits := open(t, SourceOptions{Splits: 3})
	s.over = func() func(uint64) (bool, error) { return func(n uint64) (bool, error) { return n >= 777, nil } }
	var numbers []uint64
	for _, split := range splits {
		events, offsets := read(t, s, split, 0)
		for _, e := range events {
			require.Equal(t, all[e.Number], e)
			numbers = append(numbers, e.Number)
		}
		again, _ := read(t, s, split, offsets[len(offsets)-1])
		require.Empty(t, again)
	}
	slices.Sort(numbers)
	require.Len(t, slices.Compact(numbers), 777)
	require.EqualValues(t, 776, numbers[776])

	broken := errors.New("broken")
	s.over = func() func(uint64) (bool, error) { return func(uint64) (bool, error) { return false, broken } }
	r, err := s.Open(context.Background(), splits[0], 0)
	require.NoError(t, err)
	_, _, err = r.Next()
	require.ErrorIs(t, err, broken)
	require.NoError(t, r.Close())
}
