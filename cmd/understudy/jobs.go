package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// jobSpec is a job of this command.
type jobSpec struct {
	name  string
	about string
	build func(o *runOptions) (*operator.Job, func(), error) // the second result frees what the job holds
	flags []string                                           // those of ownFlags that it has

	readsTwice bool // it reads its input in two operators
}

// ownFlags are the flags that some jobs have and others don't.
var ownFlags = slices.Concat([]string{"input", "source", "service", "window"}, eventFlagNames)

// jobs lists the jobs of `understudy run`.
var jobs = append([]jobSpec{
	{name: "wordcount", about: "running count of each word (a maximal run of ASCII letters and digits, lower-cased)", build: buildWordcount,
		flags: []string{"input", "source"}},
	{name: "passthrough", about: "every line with its file and byte offset, or where else it stands", build: buildPassthrough,
		flags: []string{"input", "source"}},
	{name: "enrich", readsTwice: true, about: "deliberately nondeterministic: arrival order and time, random draws, an external service, time windows",
		build: buildEnrich, flags: []string{"input", "source", "service", "window"}},
}, nexmarkJobs()...)

// has tells whether a flag of ownFlags has an effect on the job.
func (j *jobSpec) has(flag string) bool { return slices.Contains(j.flags, flag) }

// misplaced finds a flag that was given and has no effect on the job.
func (j *jobSpec) misplaced(given func(flag string) bool) error {
	for _, flag := range ownFlags {
		if j.has(flag) || !given(flag) {
			continue
		}
		var names []string
		for _, other := range jobs {
			if other.has(flag) {
				names = append(names, other.name)
			}
		}
		return fmt.Errorf("--%s has no effect on the job %s, only on %s", flag, j.name, strings.Join(names, ", "))
	}
	return nil
}

func findJob(name string) (*jobSpec, error) {
	i := slices.IndexFunc(jobs, func(j jobSpec) bool { return j.name == name })
	if i >= 0 {
		return &jobs[i], nil
	}
	return nil, usageError(fmt.Errorf("unknown job %q: want %s", name, jobNames()))
}

func jobNames() string {
	var names []string
	for _, j := range jobs {
		names = append(names, j.name)
	}
	return strings.Join(names, ", ")
}

// wordCount is a line of wordcount's output.
type wordCount struct {
	Word  string `json:"word"`
	Count int64  `json:"count"`
}

func buildWordcount(o *runOptions) (*operator.Job, func(), error) {
	source, err := o.lines()
	if err != nil {
		return nil, nil, err
	}
	job := operator.NewJob("wordcount")
	lines := operator.From(job, "lines", source, operator.WithCodec[file.Line](lineCodec{}))
	words := operator.FlatMap(lines, "split", func(_ operator.Context, l file.Line, emit func(string)) error {
		splitWords(l.Text, emit)
		return nil
	})
	counts := operator.Aggregate(operator.KeyBy(words, func(word string) string { return word }), "count",
		func(acc wordCount, word string) (wordCount, error) {
			return wordCount{Word: word, Count: acc.Count + 1}, nil
		}, operator.WithCodec[wordCount](wordCountCodec{}))
	return job, func() {}, outputTo(o, counts, wordCountJSON{})
}

// splitWords finds the words of a line. A word is a maximal run of ASCII letters and digits, lower-cased.
func splitWords(text string, emit func(string)) {
	start, upper := -1, false
	for i := 0; i <= len(text); i++ {
		var c byte
		if i < len(text) {
			c = text[i]
		}
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		case c >= 'A' && c <= 'Z':
			upper = true
		default:
			if start >= 0 {
				word := text[start:i]
				if upper {
					word = strings.ToLower(word)
				}
				emit(word)
			}
			start, upper = -1, false
			continue
		}
		if start < 0 {
			start = i
		}
	}
}

// passedLine is a line of passthrough's output.
type passedLine struct {
	File   string `json:"file"`
	Offset uint64 `json:"offset"`
	Line   string `json:"line"`
}

func buildPassthrough(o *runOptions) (*operator.Job, func(), error) {
	source, err := o.lines()
	if err != nil {
		return nil, nil, err
	}
	job := operator.NewJob("passthrough")
	lines := operator.From(job, "lines", source, operator.WithCodec[file.Line](lineCodec{}))
	passed := operator.Map(operator.Rebalanced(lines), "pass", func(_ operator.Context, l file.Line) (passedLine, error) {
		return passedLine{File: l.File, Offset: l.Offset, Line: l.Text}, nil
	})
	return job, func() {}, outputTo(o, passed, operator.JSON[passedLine]())
}
