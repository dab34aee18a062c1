package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// DrawFields are the names of the fields of draw and window records.
type DrawFields struct {
	Kind string // says which of the two a record is; "kind"

	Draw   string // the kind of a draw; "draw"
	ID     string // of a draw: the id of the input record; "id"
	Key    string // of both; "key"
	Random string // of a draw: the whole number that was drawn; "random"

	Window string // the kind of a window; "window"
	Start  string // of a window: its first millisecond; "start"
	Count  string // of a window: how many draws are in it; "count"
	Sum    string // of a window: the sum of what they drew; "sum"
	IDs    string // of a window: an array of their ids; "ids"
}

// EnsureDefaults replaces empty names by the defaults.
func (f *DrawFields) EnsureDefaults() {
	for name, byDefault := range map[*string]string{
		&f.Kind: "kind", &f.Draw: "draw", &f.ID: "id", &f.Key: "key", &f.Random: "random",
		&f.Window: "window", &f.Start: "start", &f.Count: "count", &f.Sum: "sum", &f.IDs: "ids",
	} {
		if *name == "" {
			*name = byDefault
		}
	}
}

// DrawsOptions say what CheckDraws checks.
type DrawsOptions struct {
	Options
	// Input has the ids. Without Fields they are @file and @offset for plain lines, and Names.ID for everything else. Several
	// fields are joined by colons.
	Input Selection
	// Output has the draws and windows, one JSON object per line; other objects are passed over and counted. Fields is not
	// used. A torn last line is reported unless Torn says otherwise.
	Output Selection
	// Names are the names of the fields.
	Names DrawFields
}

// EnsureDefaults replaces zero values by the defaults.
func (o *DrawsOptions) EnsureDefaults() {
	o.Options.EnsureDefaults()
	o.Names.EnsureDefaults()
	if o.Output.Torn == TornDefault {
		o.Output.Torn = TornReported
	}
	if o.Output.Format == Auto {
		o.Output.Format = JSONL
	}
}

// CheckDraws checks the output of a job that draws at random once for each input record, shows what it drew, and adds the
// draws up per key and window. The draws differ from run to run, so there is nothing to compare them with; but one run that
// looks as if nothing had failed shows one draw per id, and windows that follow from the draws it shows. Its violations are
//
//   - missing, duplicate, unexpected: an input id without draw, a draw too many, a draw of an id that is not in the input,
//   - window-missing: a draw that is in no window,
//   - window-duplicate: an id that is in a window a second time, or in a second window,
//   - window-unexpected: an id in a window of which no draw is visible,
//   - window-key: a draw in a window of another key,
//   - window-count: a window whose count is not the number of its ids,
//   - window-sum: a window whose sum is not that of the visible draws of its ids; not judged if one of these is not visible,
//   - window-repeated: a window of a key and start that had a window before,
//   - torn: an output file whose last line has no newline.
func CheckDraws(ctx context.Context, opt DrawsOptions) (*Report, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if opt.Output.Format != JSONL {
		return nil, fmt.Errorf("verify: draws must be JSONL, since windows have arrays")
	}
	if err := defaultInputID(&opt.Input, []string{opt.Names.ID}); err != nil {
		return nil, err
	}
	c := drawsCheck{opt: opt, m: newMeter(ctx, opt.Progress)}
	return c.run(ctx)
}

// drawsCheck sorts twice: by id, where input, draws and members of windows meet, and then by window, where what the members
// drew adds up.
type drawsCheck struct {
	opt                                               DrawsOptions
	m                                                 *meter
	input                                             *scanner
	output                                            *scanner
	byID, byWindow                                    *Sorter
	draws, windows, others                            int64
	missing, duplicate, unexpected                    *tally
	unwindowed, twice, undrawn, wrongKey, count, sums *tally
	repeated                                          *tally
	inputID                                           identity
	id                                                idDraws
	window                                            windowGroup
	elements                                          []value
	key, value, text                                  []byte
}

// Fields of the output's scanner, in the order in which they are asked for.
const (
	drawKind = iota
	drawID
	drawKey
	drawRandom
	drawStart
	drawCount
	drawSum
	drawIDs
)

// The values of records sorted by id begin with what they are, in the order in which they must come.
const (
	drawsInput  byte = iota // place
	drawsDraw               // place, 8 bytes drawn, key
	drawsMember             // place, uvarint window, key
)

func (c *drawsCheck) run(ctx context.Context) (_ *Report, err error) {
	kinds := tallies(c.opt.Offenders, "missing", "duplicate", "unexpected", "window-missing", "window-duplicate",
		"window-unexpected", "window-key", "window-count", "window-sum", "window-repeated", "torn")
	c.missing, c.duplicate, c.unexpected, c.unwindowed, c.twice = kinds[0], kinds[1], kinds[2], kinds[3], kinds[4]
	c.undrawn, c.wrongKey, c.count, c.sums, c.repeated = kinds[5], kinds[6], kinds[7], kinds[8], kinds[9]

	n := c.opt.Names
	c.opt.Output.Fields = []string{n.Kind, n.ID, n.Key, n.Random, n.Start, n.Count, n.Sum, n.IDs}
	c.inputID = identity{fields: c.opt.Input.Fields, joined: true}
	if c.input, err = newScanner(c.opt.Input, sideInput, c.m, kinds[10]); err != nil {
		return nil, err
	}
	if c.output, err = newScanner(c.opt.Output, sideOutput, c.m, kinds[10]); err != nil {
		return nil, err
	}
	half := SorterOptions{Memory: c.opt.Memory / 2, TempDir: c.opt.TempDir, ByValue: true}
	if c.byID, err = NewSorter(half); err != nil {
		return nil, err
	}
	if c.byWindow, err = NewSorter(half); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.byID.Close(), c.byWindow.Close()) }()

	inputs, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	return &Report{
		Check: "draws",
		Counts: []Count{
			{"input-files", int64(len(c.input.files))}, {"input-records", inputs},
			{"output-files", int64(len(c.output.files))}, {"draws", c.draws}, {"windows", c.windows},
			{"other-records", c.others},
		},
		Violations: violations(kinds...),
	}, nil
}

// read reads everything and goes through both sorts.
func (c *drawsCheck) read(ctx context.Context) (inputs int64, err error) {
	inputs, err = c.input.each("reading input", func(r *row) error {
		key, err := c.inputID.key(r)
		if err != nil {
			return err
		}
		c.value = appendSortedPlace(append(c.value[:0], drawsInput), r.at)
		return c.byID.Add(key, c.value)
	})
	if err != nil {
		return inputs, err
	}
	if _, err = c.output.each("reading output", c.addOutput); err != nil {
		return inputs, err
	}
	c.m.phase("comparing ids", 0)
	if err = c.byID.Merge(ctx, c.byIDRecord); err != nil {
		return inputs, err
	}
	if err = c.finishID(); err != nil {
		return inputs, err
	}
	c.m.phase("adding up windows", 0)
	if err = c.byWindow.Merge(ctx, c.byWindowRecord); err != nil {
		return inputs, err
	}
	c.finishWindow()
	return inputs, nil
}

func (c *drawsCheck) addOutput(r *row) error {
	kind := r.fields[drawKind]
	if kind.kind == kindMissing {
		return r.fail("field %q is missing", c.opt.Names.Kind)
	}
	var err error
	if c.text, err = kind.appendText(c.text[:0]); err != nil {
		return r.fail("field %q %w", c.opt.Names.Kind, err)
	}
	switch string(c.text) {
	case c.opt.Names.Draw:
		return c.addDraw(r)
	case c.opt.Names.Window:
		return c.addWindow(r)
	}
	c.others++
	return nil
}

func (c *drawsCheck) addDraw(r *row) error {
	c.draws++
	var err error
	if c.key, err = r.fields[drawID].appendText(c.key[:0]); err != nil {
		return r.fail("field %q %w", c.opt.Names.ID, err)
	}
	drawn, err := r.fields[drawRandom].modular()
	if err != nil {
		return r.fail("field %q %w", c.opt.Names.Random, err)
	}
	c.value = appendSortedPlace(append(c.value[:0], drawsDraw), r.at)
	c.value = binary.BigEndian.AppendUint64(c.value, drawn)
	if err := c.appendKey(r); err != nil {
		return err
	}
	return c.byID.Add(boundKey(c.key, 0), c.value)
}

// appendKey appends the key of a draw or window to c.value.
func (c *drawsCheck) appendKey(r *row) error {
	start := len(c.value)
	var err error
	if c.value, err = r.fields[drawKey].appendText(c.value); err != nil {
		return r.fail("field %q %w", c.opt.Names.Key, err)
	}
	c.value = boundKey(c.value, start)
	return nil
}

// appendSortedPlace appends a place of one of the two sides so that places sort as they compare.
func appendSortedPlace(dst []byte, p place) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.file))
	return binary.BigEndian.AppendUint64(dst, uint64(p.line))
}

const sortedPlaceBytes = 12

func takeSortedPlace(value []byte, side byte) (place, []byte) {
	return place{
		side: side,
		file: int(binary.BigEndian.Uint32(value)),
		line: int64(binary.BigEndian.Uint64(value[4:])),
	}, value[sortedPlaceBytes:]
}

// idDraws is what is known of one id.
type idDraws struct {
	key     []byte
	any     bool
	inputs  int64
	input   place
	draws   int64
	draw    place  // the first
	second  place  // the second
	drawn   uint64 // by the first
	drawKey []byte
	members int64
	member  place // the first
}

// byIDRecord takes one record of the first sort. Of one id, the input comes first, then draws, then members of windows.
func (c *drawsCheck) byIDRecord(r Record) error {
	if err := c.m.tick(); err != nil {
		return err
	}
	g := &c.id
	if r.First {
		if err := c.finishID(); err != nil {
			return err
		}
		*g = idDraws{key: append(g.key[:0], r.Key...), any: true, drawKey: g.drawKey[:0]}
	}
	what, value := r.Value[0], r.Value[1:]
	switch what {
	case drawsInput:
		at, _ := takeSortedPlace(value, sideInput)
		if g.inputs++; g.inputs == 1 {
			g.input = at
			return nil
		}
		return fmt.Errorf("%w: input id %q stands twice, at %s and %s: name more fields", ErrUnusable,
			c.inputID.show(g.key), c.input.where(g.input), c.input.where(at))
	case drawsDraw:
		at, value := takeSortedPlace(value, sideOutput)
		g.draws++
		switch g.draws {
		case 1:
			g.draw, g.drawn = at, binary.BigEndian.Uint64(value)
			g.drawKey = append(g.drawKey, value[8:]...)
		case 2:
			g.second = at
		}
		return nil
	}
	return c.addMember(value)
}

// addMember takes an id's membership of a window and passes what it drew on to the second sort.
func (c *drawsCheck) addMember(value []byte) error {
	g := &c.id
	at, value := takeSortedPlace(value, sideOutput)
	window, n := binary.Uvarint(value)
	windowKey := value[n:]
	name := c.inputID.show(g.key)
	if g.members++; g.members == 1 {
		g.member = at
	} else {
		first := g.member
		c.twice.add(1, at, func() Offender {
			return Offender{What: name, Where: c.output.where(at), Detail: "also in the window at " + c.output.where(first)}
		})
	}
	if g.draws == 0 {
		c.undrawn.add(1, at, func() Offender {
			return Offender{What: name, Where: c.output.where(at), Detail: "no draw of this id is visible"}
		})
	} else if !bytes.Equal(windowKey, g.drawKey) {
		c.wrongKey.add(1, at, func() Offender {
			return Offender{What: name, Where: c.output.where(at),
				Detail: fmt.Sprintf("window of key %q, but drawn for key %q", shorten(string(windowKey)), shorten(string(g.drawKey)))}
		})
	}
	return c.byWindow.Add(windowNumber(window), memberRecord(g.draws > 0, g.drawn))
}

func (c *drawsCheck) finishID() error {
	g := &c.id
	if !g.any {
		return nil
	}
	name := c.inputID.show(g.key)
	switch {
	case g.inputs > 0 && g.draws == 0:
		c.missing.add(1, g.input, func() Offender { return Offender{What: name, Where: c.input.where(g.input)} })
	case g.inputs == 0 && g.draws > 0:
		c.unexpected.add(g.draws, g.draw, func() Offender {
			return Offender{What: name, Where: c.output.where(g.draw), Detail: times(g.draws)}
		})
	case g.draws > 1:
		c.duplicate.add(g.draws-1, g.second, func() Offender {
			return Offender{What: name, Where: c.output.where(g.second),
				Detail: fmt.Sprintf("%s, first at %s", times(g.draws), c.output.where(g.draw))}
		})
	}
	if g.draws > 0 && g.members == 0 {
		c.unwindowed.add(1, g.draw, func() Offender { return Offender{What: name, Where: c.output.where(g.draw)} })
	}
	return nil
}
