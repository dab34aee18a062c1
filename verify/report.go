package verify

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Report is the result of a check: what was counted and what was found wrong.
type Report struct {
	// Check is the name of the check, such as "ids".
	Check string
	// Counts say how much was looked at, in the order in which they are shown.
	Counts []Count
	// Violations has every kind that the check looks for, also those that did not occur.
	Violations []Violation
}

// Count is one number of a report.
type Count struct {
	Name string
	N    int64
}

// Violation is one kind of fault and its occurrences.
type Violation struct {
	// Kind is the name of the fault, such as "missing".
	Kind string
	// Count is how often it occurred.
	Count int64
	// First are the first occurrences in the order of the files, at most Options.Offenders of them.
	First []Offender
	// Allowed says that the caller asked to tolerate this kind: it is shown but does not make the report unclean.
	Allowed bool
}

// Offender is one occurrence of a fault.
type Offender struct {
	What   string `json:"what"`             // the id, key or value
	Where  string `json:"where,omitempty"`  // file:line, or the place in a history
	Detail string `json:"detail,omitempty"` // what is wrong with it
}

// Clean reports whether nothing was found, apart from what is allowed.
func (r *Report) Clean() bool {
	return !slices.ContainsFunc(r.Violations, func(v Violation) bool { return v.Count > 0 && !v.Allowed })
}

// Count returns the number of occurrences of a kind of violation, 0 for a kind the check does not know.
func (r *Report) Count(kind string) int64 {
	for _, v := range r.Violations {
		if v.Kind == kind {
			return v.Count
		}
	}
	return 0
}

// WriteText writes the report for a person to read.
func (r *Report) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	width := 0
	for _, c := range r.Counts {
		width = max(width, len(c.Name))
	}
	for _, v := range r.Violations {
		width = max(width, len(v.Kind))
	}
	for _, c := range r.Counts {
		fmt.Fprintf(b, "%-*s  %d\n", width, c.Name, c.N)
	}
	for _, v := range r.Violations {
		note := ""
		if v.Count > 0 && v.Allowed {
			note = " (allowed)"
		}
		fmt.Fprintf(b, "%-*s  %d%s\n", width, v.Kind, v.Count, note)
		for _, o := range v.First {
			fmt.Fprintf(b, "    %s\n", o)
		}
		if rest := v.Count - int64(len(v.First)); rest > 0 && len(v.First) > 0 {
			fmt.Fprintf(b, "    and %d more\n", rest)
		}
	}
	fmt.Fprintf(b, "verify %s: %s\n", r.Check, r.verdict())
	return b.Flush()
}

func (r *Report) verdict() string {
	if r.Clean() {
		return "clean"
	}
	var parts []string
	for _, v := range r.Violations {
		if v.Count > 0 && !v.Allowed {
			parts = append(parts, strconv.FormatInt(v.Count, 10)+" "+v.Kind)
		}
	}
	return "VIOLATED: " + strings.Join(parts, ", ")
}

// String returns the offender on one line.
func (o Offender) String() string {
	s := o.What
	if o.Where != "" {
		s = o.Where + ": " + s
	}
	if o.Detail != "" {
		s += " (" + o.Detail + ")"
	}
	return s
}

// MarshalJSON gives one object: check, clean, counts by name, and violations by kind.
func (r *Report) MarshalJSON() ([]byte, error) {
	type violation struct {
		Count   int64      `json:"count"`
		Allowed bool       `json:"allowed,omitempty"`
		First   []Offender `json:"first"`
	}
	counts := make(map[string]int64, len(r.Counts))
	for _, c := range r.Counts {
		counts[c.Name] = c.N
	}
	violations := make(map[string]violation, len(r.Violations))
	for _, v := range r.Violations {
		first := v.First
		if first == nil {
			first = []Offender{}
		}
		violations[v.Kind] = violation{Count: v.Count, Allowed: v.Allowed, First: first}
	}
	return json.Marshal(struct {
		Check      string               `json:"check"`
		Clean      bool                 `json:"clean"`
		Counts     map[string]int64     `json:"counts"`
		Violations map[string]violation `json:"violations"`
	}{r.Check, r.Clean(), counts, violations})
}

// place is a line of one of the files of a check. Places are ordered by side, file and line.
type place struct {
	side byte // which selection: sideInput, sideOutput
	file int  // index among the files of the selection
	line int64
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.side, q.side), cmp.Compare(p.file, q.file), cmp.Compare(p.line, q.line))
}

// tally counts one kind of violation and keeps its first offenders.
type tally struct {
	kind    string
	allowed bool
	count   int64
	keep    int
	// Invariant: sorted by place, at most keep long.
	first []placedOffender
}

type placedOffender struct {
	at place
	Offender
}

// add counts n occurrences at a place. The offender is only made if it is among the first.
func (t *tally) add(n int64, at place, offender func() Offender) {
	t.count += n
	if t.keep == 0 {
		return
	}
	if len(t.first) == t.keep {
		if at.compare(t.first[t.keep-1].at) >= 0 {
			return
		}
		t.first = t.first[:t.keep-1]
	}
	i, _ := slices.BinarySearchFunc(t.first, at, func(o placedOffender, at place) int {
		if o.at.compare(at) <= 0 {
			return -1 // behind its equals: the order of arrival decides
		}
		return 1
	})
	t.first = slices.Insert(t.first, i, placedOffender{at, offender()})
}

func (t *tally) violation() Violation {
	v := Violation{Kind: t.kind, Count: t.count, Allowed: t.allowed}
	for _, o := range t.first {
		v.First = append(v.First, o.Offender)
	}
	return v
}

// tallies makes one tally for each kind.
func tallies(keep int, kinds ...string) []*tally {
	ts := make([]*tally, len(kinds))
	for i, k := range kinds {
		ts[i] = &tally{kind: k, keep: keep}
	}
	return ts
}

func violations(ts ...*tally) []Violation {
	vs := make([]Violation, len(ts))
	for i, t := range ts {
		vs[i] = t.violation()
	}
	return vs
}
