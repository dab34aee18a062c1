package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The anomalies of a history, by the names that Jepsen gives them in jepsen.tests.kafka.
const (
	AnomalyDuplicate           = "duplicate"             // a value stands at several offsets of a key
	AnomalyLostWrite           = "lost-write"            // a committed send that nobody polled, though a later value was polled
	AnomalyG1a                 = "G1a"                   // a value was polled whose send failed
	AnomalyPrecommittedRead    = "precommitted-read"     // a transaction polled what it sent itself
	AnomalyUnseen              = "unseen"                // an acknowledged send that nobody polled
	AnomalyInconsistentOffsets = "inconsistent-offsets"  // an offset of a key has several values
	AnomalyPollSkip            = "poll-skip"             // a process polled on beyond a value that it had not polled
	AnomalyNonmonotonicPoll    = "nonmonotonic-poll"     // a process polled at or before where it had left off
	AnomalyNonmonotonicSend    = "nonmonotonic-send"     // what a process sent later stands at or before what it sent earlier
	AnomalyIntPollSkip         = "int-poll-skip"         // poll-skip within one operation
	AnomalyIntNonmonotonicPoll = "int-nonmonotonic-poll" // nonmonotonic-poll within one operation
	AnomalyIntSendSkip         = "int-send-skip"         // values of others between those that one operation sent
	AnomalyIntNonmonotonicSend = "int-nonmonotonic-send" // nonmonotonic-send within one operation
	AnomalyNoWriterOfValue     = "no-writer-of-value"    // a value was polled that nobody sent
)

// Anomalies lists all of them in the order of a report.
func Anomalies() []string {
	return []string{
		AnomalyDuplicate, AnomalyLostWrite, AnomalyG1a, AnomalyPrecommittedRead, AnomalyUnseen, AnomalyInconsistentOffsets,
		AnomalyPollSkip, AnomalyNonmonotonicPoll, AnomalyNonmonotonicSend,
		AnomalyIntPollSkip, AnomalyIntNonmonotonicPoll, AnomalyIntSendSkip, AnomalyIntNonmonotonicSend,
		AnomalyNoWriterOfValue,
	}
}

// HistoryOptions say what CheckHistory checks.
type HistoryOptions struct {
	Options
	// Path is the history: EDN or JSON, an array of operations or one after the other, also as .gz.
	Path string
	// Allow names anomalies that the system under test may show. They are reported but are no violations. Jepsen allows
	// Kafka int-send-skip always, and poll-skip and nonmonotonic-poll to consumers that subscribe.
	Allow []string
}

// CheckHistory looks in a history of sends and polls for the anomalies of Jepsen's kafka workload. See Anomalies for their
// names.
//
// An operation is a map with type (invoke, ok, fail, info), f (send, poll, txn, assign, subscribe), process, value and
// optionally index and rebalance-log. The value of a send, poll or txn is a list of [send key value], which completes as
// [send key [offset value]], and [poll], which completes as [poll {key [[offset value] …]}]. Values must be unique per key.
//
// The log of a key is put together from all polls, and from the offsets of sends that were committed: acknowledged, or
// undecided but polled in part. Where an offset has several values, the first to be seen is taken as its value.
func CheckHistory(ctx context.Context, opt HistoryOptions) (*Report, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	kinds := tallies(opt.Offenders, Anomalies()...)
	a := analysis{found: map[string]*tally{}}
	for _, t := range kinds {
		t.allowed = slices.Contains(opt.Allow, t.kind)
		a.found[t.kind] = t
	}
	for _, name := range opt.Allow {
		if a.found[name] == nil {
			return nil, fmt.Errorf("verify: unknown anomaly %q; known are %s", name, strings.Join(Anomalies(), ", "))
		}
	}
	m := newMeter(ctx, opt.Progress)
	var err error
	if a.ops, err = readHistory(ctx, opt.Path, m); err != nil {
		return nil, err
	}
	if err := a.run(m); err != nil {
		return nil, fmt.Errorf("%s: %w", opt.Path, err)
	}
	return &Report{
		Check: "history",
		Counts: []Count{
			{"operations", int64(len(a.ops))}, {"completed-transactions", a.transactions}, {"keys", int64(len(a.logs))},
		},
		Violations: violations(kinds...),
	}, nil
}

// analysis is what is derived from a history.
type analysis struct {
	ops          []historyOp
	found        map[string]*tally
	transactions int64 // completed sends, polls and txns

	writer   map[string]map[string]*historyOp // key, value: its send's completion, or invocation if that is all there is
	okReads  map[string]map[string]*historyOp // key, value: the first acknowledged operation that polled it
	allReads map[string]map[string]*historyOp // the same for any operation
	logs     map[string]*keyLog
}

func (a *analysis) run(m *meter) error {
	m.phase("analysing history", 0)
	a.index()
	if a.transactions == 0 {
		return fmt.Errorf("%w: there is no completed send, poll or txn", ErrUnusable)
	}
	a.buildLogs()
	for _, look := range []func(){
		a.logAnomalies, a.abortedReads, a.precommittedReads, a.lostWrites, a.unseen, a.unwritten,
		a.pollsByProcess, a.sendsByProcess, a.internalOrder,
	} {
		if err := m.cancelled(); err != nil {
			return err
		}
		look()
	}
	return nil
}

// report counts one anomaly at an operation.
func (a *analysis) report(kind string, op *historyOp, key, what, detail string) {
	at := place{}
	where := ""
	if op != nil {
		at.line, where = int64(op.place), op.name()
	}
	a.found[kind].add(1, at, func() Offender {
		return Offender{What: "key " + shorten(key) + ": " + shorten(what), Where: where, Detail: detail}
	})
}

// index notes who wrote and who read each value.
func (a *analysis) index() {
	a.writer = map[string]map[string]*historyOp{}
	a.okReads = map[string]map[string]*historyOp{}
	a.allReads = map[string]map[string]*historyOp{}
	for i := range a.ops {
		op := &a.ops[i]
		if !op.transacts() {
			continue
		}
		if op.completed() {
			a.transactions++
		}
		for _, w := range op.writes() {
			for _, msg := range w.messages {
				if op.completed() || at(a.writer, w.key, msg.value) == nil {
					put(a.writer, w.key, msg.value, op)
				}
			}
		}
		for _, r := range op.reads() {
			for _, msg := range r.messages {
				putFirst(a.allReads, r.key, msg.value, op)
				if op.typ == "ok" {
					putFirst(a.okReads, r.key, msg.value, op)
				}
			}
		}
	}
}

func at(m map[string]map[string]*historyOp, key, value string) *historyOp { return m[key][value] }

func put(m map[string]map[string]*historyOp, key, value string, op *historyOp) {
	if m[key] == nil {
		m[key] = map[string]*historyOp{}
	}
	m[key][value] = op
}

func putFirst(m map[string]map[string]*historyOp, key, value string, op *historyOp) {
	if at(m, key, value) == nil {
		put(m, key, value, op)
	}
}

// committed reports whether what an operation sent must be in the log: it was acknowledged, or is undecided and some of it was
// polled.
func (a *analysis) committed(op *historyOp) bool {
	if op.typ != "info" {
		return op.typ == "ok"
	}
	for _, w := range op.writes() {
		for _, msg := range w.messages {
			if at(a.okReads, w.key, msg.value) != nil {
				return true
			}
		}
	}
	return false
}

// abortedReads finds G1a.
func (a *analysis) abortedReads() {
	for i := range a.ops {
		op := &a.ops[i]
		if op.typ != "ok" || !op.transacts() {
			continue
		}
		for _, r := range op.reads() {
			for _, msg := range r.messages {
				if w := at(a.writer, r.key, msg.value); w != nil && w.typ == "fail" {
					a.report(AnomalyG1a, op, r.key, "polled "+msg.value, "its send failed in "+w.name())
				}
			}
		}
	}
}

// precommittedReads finds operations that polled what they sent, each once.
func (a *analysis) precommittedReads() {
	for i := range a.ops {
		op := &a.ops[i]
		if !op.transacts() || !op.completed() {
			continue
		}
		sent := map[[2]string]bool{}
		for _, w := range op.writes() {
			for _, msg := range w.messages {
				sent[[2]string{w.key, msg.value}] = true
			}
		}
		if key, value, ok := firstRead(op, sent); ok {
			a.report(AnomalyPrecommittedRead, op, key, "polled "+value, "sent by the same operation")
		}
	}
}

func firstRead(op *historyOp, sent map[[2]string]bool) (key, value string, ok bool) {
	if len(sent) == 0 {
		return "", "", false
	}
	for _, r := range op.reads() {
		for _, msg := range r.messages {
			if sent[[2]string{r.key, msg.value}] {
				return r.key, msg.value, true
			}
		}
	}
	return "", "", false
}

// unseen finds acknowledged sends that no acknowledged operation polled.
func (a *analysis) unseen() {
	for i := range a.ops {
		op := &a.ops[i]
		if op.typ != "ok" || !op.transacts() {
			continue
		}
		for _, w := range op.writes() {
			for _, msg := range w.messages {
				if at(a.okReads, w.key, msg.value) == nil {
					a.report(AnomalyUnseen, op, w.key, "sent "+msg.value, "never polled")
				}
			}
		}
	}
}

// unwritten finds values that were polled though nobody sent them.
func (a *analysis) unwritten() {
	for _, key := range slices.Sorted(maps.Keys(a.allReads)) {
		for _, value := range slices.Sorted(maps.Keys(a.allReads[key])) {
			if at(a.writer, key, value) == nil {
				a.report(AnomalyNoWriterOfValue, a.allReads[key][value], key, "polled "+value, "never sent")
			}
		}
	}
}

// lostWrites finds committed sends below the highest value polled of a key that nobody polled.
func (a *analysis) lostWrites() {
	for _, key := range slices.Sorted(maps.Keys(a.okReads)) {
		log := a.logs[key]
		if log == nil {
			continue
		}
		bound := -1
		for value := range a.okReads[key] {
			if i, ok := log.first[value]; ok {
				bound = max(bound, i)
			}
		}
		for i, e := range log.entries[:bound+1] {
			for _, value := range e.values {
				w := at(a.writer, key, value)
				if log.last[value] != i || at(a.okReads, key, value) != nil || w == nil || !a.committed(w) {
					continue
				}
				a.report(AnomalyLostWrite, w, key, "sent "+value,
					"never polled, though offset "+strconv.FormatInt(log.entries[bound].offset, 10)+" was")
			}
		}
	}
}
