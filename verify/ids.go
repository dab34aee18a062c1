package verify

import (
	"context"
	"errors"
	"fmt"
)

// IDsOptions say what CheckIDs compares.
type IDsOptions struct {
	Options
	// Input has the ids that are expected. Without Fields they are @file and @offset for plain lines, and Output.Fields
	// for everything else.
	Input Selection
	// Output has the ids that are there. Fields default to "id". A torn last line is reported unless Torn says otherwise.
	//
	// If one side has a single field and the other several, these are joined by colons.
	Output Selection
	// Multiset allows an id to stand several times in the input; it must then stand as often in the output.
	Multiset bool
}

// EnsureDefaults replaces zero values by the defaults.
func (o *IDsOptions) EnsureDefaults() {
	o.Options.EnsureDefaults()
	if len(o.Output.Fields) == 0 {
		o.Output.Fields = []string{"id"}
	}
	if o.Output.Torn == TornDefault {
		o.Output.Torn = TornReported
	}
}

// CheckIDs checks that each input id stands exactly once in the output. Its violations are
//
//   - missing: an input id that is not in the output,
//   - duplicate: a record too many of an input id; two too many count as two,
//   - unexpected: an output record whose id is not in the input,
//   - torn: an output file whose last line has no newline.
//
// Without Multiset, an id that stands twice in the input is an error, since it identifies nothing.
func CheckIDs(ctx context.Context, opt IDsOptions) (*Report, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if err := defaultInputID(&opt.Input, opt.Output.Fields); err != nil {
		return nil, err
	}
	c := idsCheck{opt: opt, m: newMeter(ctx, opt.Progress)}
	return c.run(ctx)
}

type idsCheck struct {
	opt                                  IDsOptions
	m                                    *meter
	input, output                        *scanner
	inputID, outputID                    identity
	missing, duplicate, unexpected, torn *tally
	group                                idsGroup
}

// idsGroup is what is known of one id.
type idsGroup struct {
	key       []byte
	in, out   int64
	firstIn   place
	secondIn  place
	firstOut  place
	secondOut place
}

func (c *idsCheck) run(ctx context.Context) (_ *Report, err error) {
	kinds := tallies(c.opt.Offenders, "missing", "duplicate", "unexpected", "torn")
	c.missing, c.duplicate, c.unexpected, c.torn = kinds[0], kinds[1], kinds[2], kinds[3]
	if c.inputID, c.outputID, err = identities(c.opt.Input.Fields, c.opt.Output.Fields); err != nil {
		return nil, err
	}
	if c.input, err = newScanner(c.opt.Input, sideInput, c.m, c.torn); err != nil {
		return nil, err
	}
	if c.output, err = newScanner(c.opt.Output, sideOutput, c.m, c.torn); err != nil {
		return nil, err
	}
	sorter, err := NewSorter(SorterOptions{Memory: c.opt.Memory, TempDir: c.opt.TempDir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sorter.Close()) }()

	inputs, err := c.input.each("reading input", addIDs(sorter, &c.inputID))
	if err != nil {
		return nil, err
	}
	outputs, err := c.output.each("reading output", addIDs(sorter, &c.outputID))
	if err != nil {
		return nil, err
	}
	c.m.phase("comparing", 0)
	if err := sorter.Merge(ctx, c.record); err != nil {
		return nil, err
	}
	if err := c.finishGroup(); err != nil {
		return nil, err
	}
	return &Report{
		Check: "ids",
		Counts: []Count{
			{"input-files", int64(len(c.input.files))}, {"input-records", inputs},
			{"output-files", int64(len(c.output.files))}, {"output-records", outputs},
		},
		Violations: violations(kinds...),
	}, nil
}

// addIDs returns a function that adds a row's id and place to a sorter.
func addIDs(s *Sorter, id *identity) func(*row) error {
	var at []byte
	return func(r *row) error {
		key, err := id.key(r)
		if err != nil {
			return err
		}
		at = appendPlace(at[:0], r.at)
		return s.Add(key, at)
	}
}

// record takes one record of the merge. Those of one id come together, the input's before the output's, in order of files.
func (c *idsCheck) record(r Record) error {
	if err := c.m.tick(); err != nil {
		return err
	}
	g := &c.group
	if r.First {
		if err := c.finishGroup(); err != nil {
			return err
		}
		*g = idsGroup{key: append(g.key[:0], r.Key...)}
	}
	at, _ := takePlace(r.Value)
	if at.side == sideInput {
		g.in++
		switch g.in {
		case 1:
			g.firstIn = at
		case 2:
			g.secondIn = at
		}
		return nil
	}
	g.out++
	switch g.out {
	case 1:
		g.firstOut = at
	case g.in + 1:
		g.secondOut = at
	}
	return nil
}

func (c *idsCheck) finishGroup() error {
	g := &c.group
	switch {
	case g.in > 1 && !c.opt.Multiset:
		return fmt.Errorf("%w: input id %q stands %d times, first at %s and %s: name more fields, or allow it as a multiset",
			ErrUnusable, c.inputID.show(g.key), g.in, c.input.where(g.firstIn), c.input.where(g.secondIn))
	case g.out < g.in:
		c.missing.add(g.in-g.out, g.firstIn, func() Offender {
			return Offender{What: c.inputID.show(g.key), Where: c.input.where(g.firstIn)}
		})
	case g.in == 0 && g.out > 0:
		c.unexpected.add(g.out, g.firstOut, func() Offender {
			return Offender{What: c.outputID.show(g.key), Where: c.output.where(g.firstOut), Detail: times(g.out)}
		})
	case g.out > g.in:
		c.duplicate.add(g.out-g.in, g.secondOut, func() Offender {
			return Offender{What: c.outputID.show(g.key), Where: c.output.where(g.secondOut),
				Detail: fmt.Sprintf("%s, first at %s", times(g.out), c.output.where(g.firstOut))}
		})
	}
	return nil
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
