package verify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// RunningOptions say what CheckRunning checks.
type RunningOptions struct {
	Options
	// Output has the values of the aggregate. Its Fields must be the key and the value, in that order. A torn last line is
	// reported unless Torn says otherwise.
	Output Selection
	// Start is the first value of each key; Step, which is 1 if zero, is what each further one adds. Both may be negative.
	Start, Step int64
	// Spread allows the values of one key to stand in several files. Order is then only checked within each file.
	Spread bool
	// Expect names files that say how many values each key has: key and value as in Output for JSONL and CSV, and lines like
	// "12 word", as from uniq -c, for everything else.
	Expect Selection
	// Words names text files. The number of values of a key is how often it occurs in them as a word: a run of ASCII letters
	// and digits, lower-cased.
	Words Selection
}

// EnsureDefaults replaces zero values by the defaults.
func (o *RunningOptions) EnsureDefaults() {
	o.Options.EnsureDefaults()
	if o.Step == 0 {
		o.Step = 1
	}
	if len(o.Expect.Fields) == 0 {
		o.Expect.Fields = o.Output.Fields
	}
	if o.Output.Torn == TornDefault {
		o.Output.Torn = TornReported
	}
}

// Validate reports options that make no sense.
func (o *RunningOptions) Validate() error {
	if len(o.Output.Fields) != 2 {
		return fmt.Errorf("verify: a running aggregate has a key and a value, not %d fields", len(o.Output.Fields))
	}
	return o.Options.Validate()
}

// CheckRunning checks that a running aggregate, such as a count per word, takes each value once and in order: Start,
// Start+Step, and so on, in the order in which they stand in a file. Its violations are
//
//   - missing: a value that is left out before a later one or, with Expect or Words, at the end,
//   - duplicate: a value that was there before,
//   - out-of-order: a value, new, that stands behind a later one,
//   - surplus: with Expect or Words, a value beyond the last that the key should have,
//   - off-scale: a value that is not Start plus a multiple of Step,
//   - spread: a key in more than one file, without Spread,
//   - torn: an output file whose last line has no newline.
//
// Without Expect and Words nothing says how far a key must come, so that values missing at its end go unseen.
func CheckRunning(ctx context.Context, opt RunningOptions) (*Report, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	c := runningCheck{opt: opt, m: newMeter(ctx, opt.Progress)}
	return c.run(ctx)
}

// runningCheck looks at the values twice. The first pass has them per key in order of place, which is all that is needed as
// long as they are in order. Of a key that jumps ahead, what follows goes into the second pass, in order of value, where
// duplicates meet and gaps show. A clean output therefore costs one sort.
type runningCheck struct {
	opt    RunningOptions
	m      *meter
	output *scanner
	byPlace,
	byValue *Sorter
	keys                                                            int64
	missing, duplicate, outOfOrder, surplus, offScale, spread, torn *tally
	group                                                           runningGroup
	gaps                                                            gapGroup
	buf                                                             []byte
}

// runningGroup is the state of one key in the first pass. Values are counted as ranks: Start is 0, Start+Step is 1.
type runningGroup struct {
	key      []byte
	any      bool   // a group has begun
	expected uint64 // values that Expect or Words ask for
	seen     bool   // a value was there
	last     place
	spread   bool
	prefix   uint64 // ranks below this were seen, in order
	jumped   bool   // a rank beyond prefix was seen; it and all that follow are in the second pass
	highest  uint64 // one more than the highest rank in this file
}

// The values of records in the first pass begin with what they are.
const (
	runningExpected = 0 // uvarint count
	runningSeen     = 1 // place, uvarint rank
)

func (c *runningCheck) expecting() bool { return len(c.opt.Expect.Paths)+len(c.opt.Words.Paths) > 0 }

func (c *runningCheck) run(ctx context.Context) (_ *Report, err error) {
	kinds := tallies(c.opt.Offenders, "missing", "duplicate", "out-of-order", "surplus", "off-scale", "spread", "torn")
	c.missing, c.duplicate, c.outOfOrder, c.surplus = kinds[0], kinds[1], kinds[2], kinds[3]
	c.offScale, c.spread, c.torn = kinds[4], kinds[5], kinds[6]
	if c.output, err = newScanner(c.opt.Output, sideOutput, c.m, c.torn); err != nil {
		return nil, err
	}
	half := SorterOptions{Memory: (c.opt.Memory - c.opt.Memory/wordsShare) / 2, TempDir: c.opt.TempDir}
	if c.byPlace, err = NewSorter(half); err != nil {
		return nil, err
	}
	half.ByValue = true
	if c.byValue, err = NewSorter(half); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.byPlace.Close(), c.byValue.Close()) }()

	if err := c.readExpected(); err != nil {
		return nil, err
	}
	rows, err := c.output.each("reading output", c.addRow)
	if err != nil {
		return nil, err
	}
	c.m.phase("checking order", 0)
	if err := c.byPlace.Merge(ctx, c.placed); err != nil {
		return nil, err
	}
	if err := c.finishGroup(); err != nil {
		return nil, err
	}
	c.m.phase("looking for gaps", 0)
	if err := c.byValue.Merge(ctx, c.valued); err != nil {
		return nil, err
	}
	c.finishGaps()
	return &Report{
		Check:      "running",
		Counts:     []Count{{"output-files", int64(len(c.output.files))}, {"output-records", rows}, {"keys", c.keys}},
		Violations: violations(kinds...),
	}, nil
}

// addRow adds an output record to the first pass.
func (c *runningCheck) addRow(r *row) error {
	key, v, err := c.pair(r)
	if err != nil {
		return err
	}
	rank, ok := rankOf(v, c.opt.Start, c.opt.Step)
	if !ok {
		c.offScale.add(1, r.at, func() Offender {
			return Offender{What: fmt.Sprintf("%s %d", shorten(string(key)), v), Where: r.where(),
				Detail: fmt.Sprintf("not %d plus a multiple of %d", c.opt.Start, c.opt.Step)}
		})
		return nil
	}
	var scratch [64]byte
	val := appendPlace(append(scratch[:0], runningSeen), r.at)
	return c.byPlace.Add(key, binary.AppendUvarint(val, rank))
}

// pair returns key and value of a row. The key is valid until the next call.
func (c *runningCheck) pair(r *row) ([]byte, int64, error) {
	var err error
	if c.buf, err = r.fields[0].appendText(c.buf[:0]); err != nil {
		return nil, 0, r.fail("field %q %w", c.opt.Output.Fields[0], err)
	}
	v, err := r.fields[1].integer()
	if err != nil {
		return nil, 0, r.fail("field %q %w", c.opt.Output.Fields[1], err)
	}
	c.buf = boundKey(c.buf, 0)
	return c.buf, v, nil
}

// rankOf returns which value of the sequence v is, from 0.
func rankOf(v, start, step int64) (rank uint64, ok bool) {
	distance, width := uint64(v)-uint64(start), uint64(step)
	if step < 0 {
		v, start = start, v
		distance, width = -distance, -width
	}
	return distance / width, v >= start && distance%width == 0
}

func (c *runningCheck) valueOf(rank uint64) int64 { return c.opt.Start + int64(rank)*c.opt.Step }

// placed takes one record of the first pass.
func (c *runningCheck) placed(r Record) error {
	if err := c.m.tick(); err != nil {
		return err
	}
	g := &c.group
	if r.First {
		if err := c.finishGroup(); err != nil {
			return err
		}
		*g = runningGroup{key: append(g.key[:0], r.Key...), any: true}
	}
	if r.Value[0] == runningExpected {
		n, _ := binary.Uvarint(r.Value[1:])
		g.expected += n
		return nil
	}
	at, rest := takePlace(r.Value[1:])
	rank, _ := binary.Uvarint(rest)
	return c.step(at, rank)
}

// step is one value of the current key.
func (c *runningCheck) step(at place, rank uint64) error {
	g := &c.group
	if g.seen && at.file != g.last.file {
		g.highest = 0
		if !c.opt.Spread && !g.spread {
			g.spread = true
			last := g.last
			c.spread.add(1, at, func() Offender {
				return Offender{What: shorten(string(g.key)), Where: c.output.where(at),
					Detail: "also at " + c.output.where(last)}
			})
		}
	}
	g.seen, g.last = true, at
	behind := rank+1 < g.highest
	g.highest = max(g.highest, rank+1)
	switch {
	case !g.jumped && rank == g.prefix:
		g.prefix++
		return nil
	case !g.jumped && rank < g.prefix:
		c.addDuplicate(g.key, g.expected, rank, at)
		return nil
	}
	g.jumped = true
	return c.byValue.Add(g.key, gapRecord{rank: rank, at: at, behind: behind}.append(nil))
}

func (c *runningCheck) addDuplicate(key []byte, expected, rank uint64, at place) {
	t, detail := c.duplicate, "seen before"
	if c.expecting() && rank >= expected {
		t, detail = c.surplus, fmt.Sprintf("seen before, and beyond the expected %s", times(int64(expected)))
	}
	t.add(1, at, c.offender(key, rank, at, detail))
}

func (c *runningCheck) offender(key []byte, rank uint64, at place, detail string) func() Offender {
	return func() Offender {
		return Offender{What: fmt.Sprintf("%s %d", shorten(string(key)), c.valueOf(rank)), Where: c.output.where(at),
			Detail: detail}
	}
}

// finishGroup ends a key in the first pass: it settles it, or leaves it to the second.
func (c *runningCheck) finishGroup() error {
	g := &c.group
	if !g.any {
		return nil
	}
	if g.seen {
		c.keys++
	}
	if g.jumped {
		return c.byValue.Add(g.key, gapRecord{header: true, rank: g.prefix, expected: g.expected, at: g.last}.append(nil))
	}
	if !c.expecting() {
		return nil
	}
	switch {
	case g.prefix < g.expected:
		c.addMissing(g.key, g.prefix, g.expected, g.last, g.seen)
	case g.prefix > g.expected:
		c.surplus.add(int64(g.prefix-g.expected), g.last,
			c.offender(g.key, g.prefix-1, g.last, "beyond the expected "+times(int64(g.expected))))
	}
	return nil
}

// addMissing counts the ranks from from to below to. at is where the gap was noticed.
func (c *runningCheck) addMissing(key []byte, from, to uint64, at place, seen bool) {
	c.missing.add(int64(to-from), at, func() Offender {
		what := fmt.Sprintf("%s %d", shorten(string(key)), c.valueOf(from))
		if to-from > 1 {
			what += fmt.Sprintf(" to %d", c.valueOf(to-1))
		}
		if !seen {
			return Offender{What: what, Detail: "the key is not in the output"}
		}
		return Offender{What: what, Where: c.output.where(at)}
	})
}
