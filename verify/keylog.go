package verify

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// keyLog is the log of one key as the history shows it. Its indexes count offsets that are known to hold a value, since offsets
// may have gaps: in Kafka, the markers of transactions take some.
type keyLog struct {
	entries []logEntry     // by index
	first   map[string]int // value: the index where it first stands
	last    map[string]int // value: the index where it last stands
	order   map[string]int // value: its index if each entry had only its first value
}

type logEntry struct {
	offset int64
	values []string // distinct, in the order in which they were seen
}

// buildLogs puts the logs together from all polls and all committed sends.
//
// Polls of failed operations count too: a consumer must never be shown what is not committed, whatever becomes of the
// transaction that it is part of.
func (a *analysis) buildLogs() {
	seen := map[string]map[int64][]string{}
	note := func(key string, msg message) {
		if msg.offset < 0 {
			return
		}
		if seen[key] == nil {
			seen[key] = map[int64][]string{}
		}
		if values := seen[key][msg.offset]; !slices.Contains(values, msg.value) {
			seen[key][msg.offset] = append(values, msg.value)
		}
	}
	for i := range a.ops {
		op := &a.ops[i]
		if !op.transacts() || !op.completed() {
			continue
		}
		committed := a.committed(op)
		for _, m := range op.mops {
			if m.send && committed {
				note(m.key, m.sent)
			}
			for _, p := range m.polled {
				for _, msg := range p.messages {
					note(p.key, msg)
				}
			}
		}
	}
	a.logs = map[string]*keyLog{}
	for key, offsets := range seen {
		a.logs[key] = newKeyLog(offsets)
	}
}

func newKeyLog(offsets map[int64][]string) *keyLog {
	l := &keyLog{first: map[string]int{}, last: map[string]int{}, order: map[string]int{}}
	for i, offset := range slices.Sorted(maps.Keys(offsets)) {
		values := offsets[offset]
		l.entries = append(l.entries, logEntry{offset, values})
		l.order[values[0]] = i
		for _, v := range values {
			if _, ok := l.first[v]; !ok {
				l.first[v] = i
			}
			l.last[v] = i
		}
	}
	return l
}

// distance returns how far w stands behind v: 1 if directly, also if that is not known.
func (l *keyLog) distance(v, w message) int {
	if l == nil {
		return 1
	}
	i, ok := l.order[v.value]
	j, ok2 := l.order[w.value]
	if !ok || !ok2 {
		return 1
	}
	return j - i
}

const shownBetween = 8 // skipped values that a report names

// between names the values that stand between v and w, or the first of them.
func (l *keyLog) between(v, w message) string {
	var names []string
	for _, e := range l.entries[l.order[v.value]+1 : l.order[w.value]] {
		if len(names) == shownBetween {
			names = append(names, "…")
			break
		}
		names = append(names, e.values[0])
	}
	return strings.Join(names, " ")
}

// logAnomalies finds inconsistent offsets and duplicates.
func (a *analysis) logAnomalies() {
	for _, key := range slices.Sorted(maps.Keys(a.logs)) {
		log := a.logs[key]
		places := map[string][]string{}
		for _, e := range log.entries {
			offset := strconv.FormatInt(e.offset, 10)
			if len(e.values) > 1 {
				a.report(AnomalyInconsistentOffsets, nil, key, "offset "+offset, "values "+strings.Join(e.values, " "))
			}
			for _, v := range e.values {
				if log.first[v] != log.last[v] {
					places[v] = append(places[v], offset)
				}
			}
		}
		byIndex := func(v, w string) int {
			return cmp.Or(cmp.Compare(log.first[v], log.first[w]), cmp.Compare(v, w))
		}
		for _, v := range slices.SortedFunc(maps.Keys(places), byIndex) {
			a.report(AnomalyDuplicate, a.writer[key][v], key, "value "+v, "offsets "+strings.Join(places[v], " "))
		}
	}
}

// positions is, for each key, the last event of a process that polled it, or sent to it, and the last message of that.
type positions map[string]position

type position struct {
	op  *historyOp
	msg message
}

// keepOnly forgets the positions of keys that an assign or subscribe has not asked for. A failed one changes nothing.
func (p positions) keepOnly(op *historyOp) {
	if op.typ == "invoke" || op.typ == "fail" {
		return
	}
	for key := range p {
		if !slices.Contains(op.keys, key) {
			delete(p, key)
		}
	}
}

// byProcess returns the positions of an event's process.
func byProcess(all map[string]positions, op *historyOp) positions {
	if all[op.process] == nil {
		all[op.process] = positions{}
	}
	return all[op.process]
}

// pollsByProcess finds poll-skip and nonmonotonic-poll. What a failed or undecided operation polled is compared too, but
// does not move the process on: the next one must begin where it began.
func (a *analysis) pollsByProcess() {
	all := map[string]positions{}
	for i := range a.ops {
		op := &a.ops[i]
		last := byProcess(all, op)
		switch {
		case op.f == "assign" || op.f == "subscribe":
			last.keepOnly(op)
			continue
		case (op.f != "poll" && op.f != "txn") || !op.completed():
			continue
		}
		for _, r := range op.reads() {
			if p, ok := last[r.key]; ok {
				a.pollAfter(p, op, r)
			}
			if op.typ == "ok" {
				last[r.key] = position{op, r.messages[len(r.messages)-1]}
			}
		}
	}
}

func (a *analysis) pollAfter(p position, op *historyOp, r keyPoll) {
	log, from, to := a.logs[r.key], p.msg, r.messages[0]
	what := fmt.Sprintf("polled %s after %s", to.value, from.value)
	switch d := log.distance(from, to); {
	case d > 1:
		a.report(AnomalyPollSkip, op, r.key, what, fmt.Sprintf("of %s, skipped %s", p.op.name(), log.between(from, to)))
	case d < 1:
		a.report(AnomalyNonmonotonicPoll, op, r.key, what, "of "+p.op.name()+", distance "+strconv.Itoa(d))
	}
}

// sendsByProcess finds nonmonotonic-send.
func (a *analysis) sendsByProcess() {
	all := map[string]positions{}
	for i := range a.ops {
		op := &a.ops[i]
		last := byProcess(all, op)
		switch {
		case op.f == "assign" || op.f == "subscribe":
			last.keepOnly(op)
			continue
		case (op.f != "send" && op.f != "txn") || (op.typ != "ok" && op.typ != "info"):
			continue
		}
		for _, w := range op.writes() {
			if p, ok := last[w.key]; ok {
				if d := a.logs[w.key].distance(p.msg, w.messages[0]); d < 1 {
					a.report(AnomalyNonmonotonicSend, op, w.key, fmt.Sprintf("sent %s after %s", w.messages[0].value, p.msg.value),
						"of "+p.op.name()+", distance "+strconv.Itoa(d))
				}
			}
			last[w.key] = position{op, w.messages[len(w.messages)-1]}
		}
	}
}

// internalOrder finds the anomalies within one operation.
func (a *analysis) internalOrder() {
	for i := range a.ops {
		op := &a.ops[i]
		if !op.transacts() || !op.completed() {
			continue
		}
		for _, r := range op.reads() {
			if !op.moved[r.key] {
				a.consecutive(op, r, "polled", AnomalyIntPollSkip, AnomalyIntNonmonotonicPoll)
			}
		}
		for _, w := range op.writes() {
			a.consecutive(op, w, "sent", AnomalyIntSendSkip, AnomalyIntNonmonotonicSend)
		}
	}
}

// consecutive looks at each pair of neighbours among what an operation polled or sent of a key.
func (a *analysis) consecutive(op *historyOp, p keyPoll, verb, skip, nonmonotonic string) {
	log := a.logs[p.key]
	for i := 1; i < len(p.messages); i++ {
		from, to := p.messages[i-1], p.messages[i]
		what := func() string { return fmt.Sprintf("%s %s after %s", verb, to.value, from.value) }
		switch d := log.distance(from, to); {
		case d > 1:
			a.report(skip, op, p.key, what(), "skipped "+log.between(from, to))
		case d < 1:
			a.report(nonmonotonic, op, p.key, what(), "distance "+strconv.Itoa(d))
		}
	}
}
