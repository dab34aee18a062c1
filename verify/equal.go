package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// EqualMode says what makes two records equal.
type EqualMode int

// The modes of CheckEqual.
const (
	// EqualLines compares lines byte by byte, whatever the format.
	EqualLines EqualMode = iota
	// EqualJSON compares JSON values: neither the order of keys nor the spelling of numbers and strings matters.
	EqualJSON
	// EqualFields compares only the fields that the selections name.
	EqualFields
)

// EqualOptions say what CheckEqual compares.
type EqualOptions struct {
	Options
	// A and B are the two sides. A last line without newline is a record unless Torn says otherwise.
	A, B Selection
	// Mode says what makes two records equal. With EqualFields both sides must name as many fields.
	Mode EqualMode
}

// CheckEqual checks that two selections hold the same records, each as often, in any order. Its violations are
//
//   - only-in-a: a record that A has more often than B, counted as often as it is too many,
//   - only-in-b: the reverse,
//   - torn: a last line without newline, if a selection asks to report it.
func CheckEqual(ctx context.Context, opt EqualOptions) (*Report, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	c := equalCheck{opt: opt, m: newMeter(ctx, opt.Progress)}
	switch opt.Mode {
	case EqualFields:
		if len(opt.A.Fields) == 0 || len(opt.A.Fields) != len(opt.B.Fields) {
			return nil, fmt.Errorf("verify: %d and %d fields to compare", len(opt.A.Fields), len(opt.B.Fields))
		}
	case EqualLines, EqualJSON:
		for _, s := range []*Selection{&c.opt.A, &c.opt.B} {
			s.Fields, s.Format = []string{"@line"}, Lines
		}
	}
	return c.run(ctx)
}

type equalCheck struct {
	opt            EqualOptions
	m              *meter
	a, b           *scanner
	onlyA, onlyB   *tally
	key            []byte
	inA, inB       int64
	firstA, firstB place // of the first record of the key
	idA, idB       identity
}

func (c *equalCheck) run(ctx context.Context) (_ *Report, err error) {
	kinds := tallies(c.opt.Offenders, "only-in-a", "only-in-b", "torn")
	c.onlyA, c.onlyB = kinds[0], kinds[1]
	c.idA, c.idB = identity{fields: c.opt.A.Fields}, identity{fields: c.opt.B.Fields}
	if c.a, err = newScanner(c.opt.A, sideInput, c.m, kinds[2]); err != nil {
		return nil, err
	}
	if c.b, err = newScanner(c.opt.B, sideOutput, c.m, kinds[2]); err != nil {
		return nil, err
	}
	sorter, err := NewSorter(SorterOptions{Memory: c.opt.Memory, TempDir: c.opt.TempDir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sorter.Close()) }()

	inA, err := c.a.each("reading A", c.adder(sorter, &c.idA))
	if err != nil {
		return nil, err
	}
	inB, err := c.b.each("reading B", c.adder(sorter, &c.idB))
	if err != nil {
		return nil, err
	}
	c.m.phase("comparing", 0)
	if err := sorter.Merge(ctx, c.record); err != nil {
		return nil, err
	}
	c.finishGroup()
	return &Report{
		Check: "equal",
		Counts: []Count{
			{"a-files", int64(len(c.a.files))}, {"a-records", inA},
			{"b-files", int64(len(c.b.files))}, {"b-records", inB},
		},
		Violations: violations(kinds...),
	}, nil
}

// adder returns a function that adds a row to a sorter under what makes it equal to others.
func (c *equalCheck) adder(s *Sorter, id *identity) func(*row) error {
	if c.opt.Mode != EqualJSON {
		return addIDs(s, id)
	}
	var key, at []byte
	return func(r *row) error {
		if len(bytes.TrimSpace(r.text)) == 0 {
			return nil
		}
		var err error
		if key, err = appendCanonical(key[:0], r.text); err != nil {
			return r.fail("malformed JSON: %w: %s", err, shorten(string(r.text)))
		}
		at = appendPlace(at[:0], r.at)
		key = boundKey(key, 0)
		return s.Add(key, at)
	}
}

func (c *equalCheck) record(r Record) error {
	if err := c.m.tick(); err != nil {
		return err
	}
	if r.First {
		c.finishGroup()
		c.key = append(c.key[:0], r.Key...)
		c.inA, c.inB = 0, 0
	}
	at, _ := takePlace(r.Value)
	if at.side == sideInput {
		if c.inA++; c.inA == 1 {
			c.firstA = at
		}
		return nil
	}
	if c.inB++; c.inB == 1 {
		c.firstB = at
	}
	return nil
}

func (c *equalCheck) finishGroup() {
	detail := func() string { return fmt.Sprintf("%s in A, %s in B", times(c.inA), times(c.inB)) }
	switch {
	case c.inA > c.inB:
		c.onlyA.add(c.inA-c.inB, c.firstA, func() Offender {
			return Offender{What: c.idA.show(c.key), Where: c.a.where(c.firstA), Detail: detail()}
		})
	case c.inB > c.inA:
		c.onlyB.add(c.inB-c.inA, c.firstB, func() Offender {
			return Offender{What: c.idB.show(c.key), Where: c.b.where(c.firstB), Detail: detail()}
		})
	}
}

// appendCanonical appends a JSON value in a form that is the same for equal values.
func appendCanonical(dst, text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return dst, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return dst, errors.New("something behind the value")
	}
	return appendValue(dst, v), nil
}

func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case json.Number:
		return appendNumber(dst, []byte(v))
	case map[string]any:
		dst = append(dst, '{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendValue(dst, k), ':')
			dst = appendValue(dst, v[k])
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, e)
		}
		return append(dst, ']')
	}
	text, err := json.Marshal(v) // a string, a bool or nil
	if err != nil {
		panic("verify: canonical JSON: " + err.Error())
	}
	return append(dst, text...)
}
