package verify

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ops makes a history of completions, one per line: "process type f value". Sends in them are their own invocations.
func ops(lines ...string) string {
	var b strings.Builder
	for i, line := range lines {
		part := strings.SplitN(line, " ", 4)
		fmt.Fprintf(&b, "{:index %d, :process %s, :type :%s, :f :%s, :value %s}\n", i, part[0], part[1], part[2], part[3])
	}
	return b.String()
}

// checkHistory writes a history and checks it.
func checkHistory(t testing.TB, name, content string, allow ...string) (*Report, error) {
	dir := folder(t, map[string]string{name: content})
	return CheckHistory(background, HistoryOptions{Path: filepath.Join(dir, name), Allow: allow})
}

// plantedHistories are histories with one anomaly each. Where one anomaly cannot be had without another, both are listed.
var plantedHistories = []struct {
	name  string
	ops   []string
	want  counts
	kind  string
	first []string
}{
	{
		name: "clean",
		ops: []string{
			`0 ok assign [:x :y]`,
			`1 ok send [[:send :x [0 :a]] [:send :x [2 :b]]]`,
			`1 ok send [[:send :x [3 :c]] [:send :y [0 :a]]]`,
			`0 ok poll [[:poll {:x [[0 :a] [2 :b]]}] [:poll {}]]`,
			`0 ok poll [[:poll {:x [[3 :c]], :y [[0 :a]]}]]`,
		},
		want: counts{},
	},
	{
		name: "planted: duplicate",
		ops: []string{
			`0 ok send [[:send :x [1 :a]]]`, `1 info send [[:send :x :b]]`, `2 ok poll [[:poll {:x [[2 :b] [3 :a]]}]]`,
		},
		want: counts{AnomalyDuplicate: 1}, kind: AnomalyDuplicate, first: []string{"op 0: key x: value :a (offsets 1 3)"},
	},
	{
		name: "planted: duplicate in a failed poll; the failed send does not count",
		ops: []string{
			`0 ok send [[:send :x [1 0]]]`, `0 fail send [[:send :x [2 1]]]`, `1 fail poll [[:poll {:x [[11 0] [12 1]]}]]`,
		},
		want: counts{AnomalyDuplicate: 1, AnomalyUnseen: 1}, kind: AnomalyDuplicate, first: []string{"op 0: key x: value 0 (offsets 1 11)"},
	},
	{
		name: "planted: lost-write",
		ops: []string{
			`0 ok send [[:send :x [0 :a]]]`, `1 ok send [[:send :x [1 :b]]]`, `2 ok send [[:send :x [2 :c]]]`,
			`3 ok poll [[:poll {:x [[0 :a]]}]]`, `4 ok poll [[:poll {:x [[2 :c]]}]]`,
		},
		want: counts{AnomalyLostWrite: 1, AnomalyUnseen: 1}, kind: AnomalyLostWrite,
		first: []string{"op 1: key x: sent :b (never polled, though offset 2 was)"},
	},
	{
		name: "not lost: an undecided send of which nothing was polled",
		ops: []string{
			`0 info send [[:send :x :a] [:send :y [0 :b]]]`, `1 info send [[:send :y :c]]`, `3 ok poll [[:poll {:y [[1 :c]]}]]`,
		},
		want: counts{},
	},
	{
		name: "planted: lost-write of an undecided send of which something else was polled",
		ops: []string{
			`0 info send [[:send :x :a] [:send :y [0 :b]]]`, `1 info send [[:send :y :c]]`,
			`2 ok poll [[:poll {:x [[0 :a]]}]]`, `3 ok poll [[:poll {:y [[1 :c]]}]]`,
		},
		want: counts{AnomalyLostWrite: 1},
	},
	{
		name: "planted: lost-write by overwriting, with inconsistent-offsets",
		ops: []string{
			`0 ok send [[:send :x [0 :a]]]`, `0 ok send [[:send :x [0 :b]] [:send :x [2 :c]]]`, `1 ok poll [[:poll {:x [[0 :b] [2 :c]]}]]`,
		},
		want: counts{AnomalyLostWrite: 1, AnomalyUnseen: 1, AnomalyInconsistentOffsets: 1}, kind: AnomalyLostWrite,
		first: []string{"op 0: key x: sent :a (never polled, though offset 2 was)"},
	},
	{
		name: "planted: G1a",
		ops:  []string{`0 fail send [[:send :x 2] [:send :y 3]]`, `1 ok poll [[:poll {:x [[0 2]]}]]`},
		want: counts{AnomalyG1a: 1}, kind: AnomalyG1a, first: []string{"op 1: key x: polled 2 (its send failed in op 0)"},
	},
	{
		name: "planted: precommitted-read",
		ops:  []string{`0 ok txn [[:send :x [0 :a]] [:poll {:x [[0 :a]]}]]`},
		want: counts{AnomalyPrecommittedRead: 1}, kind: AnomalyPrecommittedRead,
		first: []string{"op 0: key x: polled :a (sent by the same operation)"},
	},
	{
		name: "planted: unseen",
		ops:  []string{`0 ok send [[:send :x [0 :a]] [:send :x [1 :b]]]`, `1 ok poll [[:poll {:x [[0 :a]]}]]`, `1 fail poll [[:poll {:x [[1 :b]]}]]`},
		want: counts{AnomalyUnseen: 1}, kind: AnomalyUnseen, first: []string{"op 0: key x: sent :b (never polled)"},
	},
	{
		name: "planted: inconsistent-offsets",
		ops: []string{
			`0 ok send [[:send :x [0 :a]]]`, `1 info send [[:send :x :b]]`, `2 ok poll [[:poll {:x [[0 :a]]}]]`, `3 ok poll [[:poll {:x [[0 :b]]}]]`,
		},
		want: counts{AnomalyInconsistentOffsets: 1}, kind: AnomalyInconsistentOffsets,
		first: []string{"key x: offset 0 (values :a :b)"},
	},
	{
		name: "consistent: the other send may not have been committed",
		ops:  []string{`0 info send [[:send :x [0 1]] [:send :y 1]]`, `1 ok send [[:send :x [0 2]]]`, `2 ok poll [[:poll {:x [[0 2]]}]]`},
		want: counts{},
	},
	{
		name: "planted: poll-skip",
		ops: []string{
			`0 info send [[:send :x :a] [:send :x :b] [:send :x :c] [:send :x :d]]`,
			`1 ok poll [[:poll {:x [[1 :a] [2 :b]]}]]`, `2 ok poll [[:poll {:x [[3 :c]]}]]`, `1 ok poll [[:poll {:x [[4 :d]]}]]`,
		},
		want: counts{AnomalyPollSkip: 1}, kind: AnomalyPollSkip,
		first: []string{"op 3: key x: polled :d after :b (of op 1, skipped :c)"},
	},
	{
		name: "a skip after an assignment without the key",
		ops: []string{
			`0 info send [[:send :x :a] [:send :x :b] [:send :x :c] [:send :x :d]]`,
			`1 ok poll [[:poll {:x [[1 :a] [2 :b]]}]]`, `2 ok poll [[:poll {:x [[3 :c]]}]]`, `1 info assign [:y]`, `1 ok poll [[:poll {:x [[4 :d]]}]]`,
		},
		want: counts{},
	},
	{
		name: "planted: poll-skip after an assignment with the key, and a failed one without",
		ops: []string{
			`0 info send [[:send :x :a] [:send :x :b] [:send :x :c] [:send :x :d]]`,
			`1 ok poll [[:poll {:x [[1 :a] [2 :b]]}]]`, `2 ok poll [[:poll {:x [[3 :c]]}]]`, `1 ok subscribe [:y :x]`, `1 fail assign [:y]`,
			`1 ok poll [[:poll {:x [[4 :d]]}]]`,
		},
		want: counts{AnomalyPollSkip: 1},
	},
	{
		name: "failed and undecided transactions begin again",
		ops: []string{
			`0 ok send [[:send :x [0 0]] [:send :x [1 1]] [:send :x [2 2]]]`, `1 ok txn [[:poll {:x [[0 0]]}]]`,
			`1 fail txn [[:poll {:x [[1 1] [2 2]]}]]`, `1 info txn [[:poll {:x [[1 1] [2 2]]}]]`, `1 ok txn [[:poll {:x [[1 1] [2 2]]}]]`,
		},
		want: counts{},
	},
	{
		name: "planted: poll-skip by transactions that do not begin again",
		ops: []string{
			`0 ok send [[:send :x [0 0]] [:send :x [1 1]] [:send :x [2 2]] [:send :x [3 3]] [:send :x [4 4]] [:send :x [5 5]]]`,
			`1 ok txn [[:poll {:x [[0 0]]}]]`, `1 fail txn [[:poll {:x [[1 1] [2 2]]}]]`, `1 info txn [[:poll {:x [[3 3] [4 4]]}]]`,
			`1 ok txn [[:poll {:x [[5 5]]}]]`, `2 ok txn [[:poll {:x [[1 1] [2 2] [3 3] [4 4]]}]]`,
		},
		want: counts{AnomalyPollSkip: 2}, kind: AnomalyPollSkip,
		first: []string{"op 3: key x: polled 3 after 0 (of op 1, skipped 1 2)", "op 4: key x: polled 5 after 0 (of op 1, skipped 1 2 3 4)"},
	},
	{
		name: "planted: nonmonotonic-poll",
		ops: []string{
			`0 info send [[:send :x :a] [:send :x :b] [:send :x :c]]`,
			`1 ok poll [[:poll {:x [[1 :a] [2 :b] [3 :c]]}]]`, `1 ok poll [[:poll {:x [[2 :b] [3 :c]]}]]`,
		},
		want: counts{AnomalyNonmonotonicPoll: 1}, kind: AnomalyNonmonotonicPoll,
		first: []string{"op 2: key x: polled :b after :c (of op 1, distance -1)"},
	},
	{
		name: "planted: nonmonotonic-send",
		ops: []string{
			`0 ok send [[:send :x [3 :c]] [:send :x [4 :d]]]`, `0 ok send [[:send :x [1 :a]] [:send :x [2 :b]]]`,
			`1 ok poll [[:poll {:x [[1 :a] [2 :b] [3 :c] [4 :d]]}]]`,
		},
		want: counts{AnomalyNonmonotonicSend: 1}, kind: AnomalyNonmonotonicSend,
		first: []string{"op 1: key x: sent :a after :d (of op 0, distance -3)"},
	},
	{
		name: "sends go back after an assignment without the key",
		ops: []string{
			`0 ok send [[:send :x [3 :c]]]`, `0 ok assign [:y]`, `0 ok send [[:send :x [1 :a]]]`, `1 ok poll [[:poll {:x [[1 :a] [3 :c]]}]]`,
		},
		want: counts{},
	},
	{
		name: "planted: int-poll-skip, in one poll and in two",
		ops: []string{
			`0 info send [[:send :x :a] [:send :x :b] [:send :x :d]]`, `1 ok poll [[:poll {:x [[1 :a] [4 :d]]}]]`,
			`2 ok poll [[:poll {:x [[1 :a]]}] [:poll {:x [[4 :d]]}]]`, `3 ok poll [[:poll {:x [[2 :b]]}]]`,
		},
		want: counts{AnomalyIntPollSkip: 2}, kind: AnomalyIntPollSkip,
		first: []string{"op 1: key x: polled :d after :a (skipped :b)", "op 2: key x: polled :d after :a (skipped :b)"},
	},
	{
		name: "planted: int-nonmonotonic-poll, back and in place",
		ops: []string{
			`0 info send [[:send :x :a] [:send :x :b] [:send :x :c]]`, `1 ok poll [[:poll {:x [[3 :c] [1 :a]]}]]`,
			`2 ok poll [[:poll {:x [[2 :b] [3 :c]]}] [:poll {:x [[3 :c]]}]]`,
		},
		want: counts{AnomalyIntNonmonotonicPoll: 2}, kind: AnomalyIntNonmonotonicPoll,
		first: []string{"op 1: key x: polled :a after :c (distance -2)", "op 2: key x: polled :c after :c (distance 0)"},
	},
	{
		name: "planted: int-send-skip",
		ops: []string{
			`0 ok send [[:send :x [1 :a]] [:send :x :c]]`, `1 info send [[:send :x :b]]`, `2 ok poll [[:poll {:x [[1 :a] [2 :b] [3 :c]]}]]`,
		},
		want: counts{AnomalyIntSendSkip: 1}, kind: AnomalyIntSendSkip,
		first: []string{"op 0: key x: sent :c after :a (skipped :b)"},
	},
	{
		name: "planted: int-nonmonotonic-send",
		ops: []string{
			`0 info send [[:send :y :d] [:send :y :b]]`, `1 info send [[:send :y :c]]`, `2 ok poll [[:poll {:y [[2 :b] [3 :c] [4 :d]]}]]`,
		},
		want: counts{AnomalyIntNonmonotonicSend: 1}, kind: AnomalyIntNonmonotonicSend,
		first: []string{"op 0: key y: sent :b after :d (distance -2)"},
	},
	{
		name: "planted: no-writer-of-value",
		ops:  []string{`0 ok poll [[:poll {:x [[2 :b]]}]]`},
		want: counts{AnomalyNoWriterOfValue: 1}, kind: AnomalyNoWriterOfValue, first: []string{"op 0: key x: polled :b (never sent)"},
	},
	{
		name: "a send that never completed may have happened",
		ops:  []string{`0 invoke send [[:send :x :b]]`, `1 ok poll [[:poll {:x [[2 :b]]}]]`},
		want: counts{},
	},
}

// TestHistoryAnomalies looks for each planted anomaly, and that none is left unplanted.
func TestHistoryAnomalies(t *testing.T) {
	planted := counts{}
	for _, c := range plantedHistories {
		r, err := checkHistory(t, "h.edn", ops(c.ops...))
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, found(r), c.name)
		maps.Copy(planted, c.want)
		if c.kind != "" {
			require.Equal(t, c.first, firsts(r, c.kind, ""), c.name)
		}
	}
	require.ElementsMatch(t, Anomalies(), slices.Collect(maps.Keys(planted)), "every anomaly is planted")
}

func TestRebalanceExcusesInternalSkips(t *testing.T) {
	history := ops(`0 ok send [[:send :x [0 :a]] [:send :x [1 :b]] [:send :x [2 :c]]]`, `1 ok poll [[:poll {:x [[0 :a] [1 :b] [2 :c]]}]]`)
	poll := `{:index 2, :process 2, :type :ok, :f :poll, :value [[:poll {:x [[0 :a] [2 :c]]}]], :rebalance-log [{:keys [%s]}]}`
	r, err := checkHistory(t, "h.edn", history+fmt.Sprintf(poll, ":y"))
	require.NoError(t, err)
	require.Equal(t, counts{AnomalyIntPollSkip: 1}, found(r))
	r, err = checkHistory(t, "h.edn", history+fmt.Sprintf(poll, ":x"))
	require.NoError(t, err)
	require.Empty(t, found(r))
}

// TestHistoryForms reads one history in every form in which it may be written.
func TestHistoryForms(t *testing.T) {
	edn := []string{
		`{:type :invoke, :f :send, :process 0, :value [[:send 1 "a"]]}`,
		`{:type :ok, :f :send, :process 0, :value [[:send 1 [0 "a"]]]}`,
		`{:type :info, :f :kill, :process :nemesis, :value nil}`,
		`{:type :ok, :f :poll, :process 1, :value [[:poll {1 [[0 "a"] [0 "a"]]}]]}`,
	}
	jsonOps := []string{
		`{"type":"invoke","f":"send","process":0,"value":[["send",1,"a"]]}`,
		`{"type":"ok","f":"send","process":0,"value":[["send",1,[0,"a"]]]}`,
		`{"type":"info","f":"kill","process":"nemesis","value":null}`,
		`{"type":"ok","f":"poll","process":1,"value":[["poll",{"1":[[0,"a"],[0,"a"]]}]]}`,
	}
	for name, content := range map[string]string{
		"lines.edn":        strings.Join(edn, "\n"),
		"vector.edn":       "[" + strings.Join(edn, ",\n") + "]\n",
		"tagged.edn.gz":    "; a store\n#jepsen.history.Op" + strings.Join(edn, "\n#jepsen.history.Op"),
		"no-extension":     strings.Join(edn, "\n"),
		"lines.jsonl":      strings.Join(jsonOps, "\n") + "\n",
		"array.json":       " [\n" + strings.Join(jsonOps, ",\n") + "]\n",
		"pretty.txt.gz":    strings.ReplaceAll("["+strings.Join(jsonOps, ",")+"]", ",", " ,\n "),
		"named-as-json.gz": strings.Join(edn, "\n"),
	} {
		r, err := checkHistory(t, name, content)
		require.NoError(t, err, name)
		require.Equal(t, counts{AnomalyIntNonmonotonicPoll: 1}, found(r), name)
		require.Equal(t, []Count{{"operations", 4}, {"completed-transactions", 2}, {"keys", 1}}, r.Counts, name)
	}
}

func TestHistoryAllow(t *testing.T) {
	history := ops(`0 ok send [[:send :x [0 :a]]]`)
	r, err := checkHistory(t, "h.edn", history, AnomalyUnseen)
	require.NoError(t, err)
	require.True(t, r.Clean())
	require.Equal(t, int64(1), r.Count(AnomalyUnseen))
	_, err = checkHistory(t, "h.edn", history, "unseemly")
	require.ErrorContains(t, err, `unknown anomaly "unseemly"`)
}

func TestHistoryUnusable(t *testing.T) {
	for content, want := range map[string]string{
		"":                                    "no completed send",
		"[]":                                  "no completed send",
		ops(`0 ok assign [:x]`):               "no completed send",
		ops(`0 invoke poll [[:poll]]`):        "no completed send",
		"12":                                  "12 is not an operation",
		"{:type :ok":                          "unexpected EOF",
		"[{:type :ok}":                        `without f`,
		`{"type":"ok","f":"poll","process":1`: "unexpected EOF",
		`[{"type":"ok","f":"poll","process":1,"value":[]}`:                 "unexpected EOF",
		`{:type :maybe, :f :poll, :process 1}`:                             "which is not invoke, ok, fail or info",
		`{:type :ok, :f :poll}`:                                            "operation without process",
		ops(`0 ok poll 12`):                                                "op 0: 12 is not a list of sends and polls",
		ops(`0 ok poll [12]`):                                              "12 is not a send or poll",
		ops(`0 ok poll [[:peek 1]]`):                                       "[:peek 1] is not a send or poll",
		ops(`0 ok send [[:send 1]]`):                                       "[:send 1] is not a send or poll",
		ops(`0 ok send [[:send 1 [1 2 3]]]`):                               "not a pair of offset and value",
		ops(`0 ok send [[:send 1 [:a 2]]]`):                                ":a is not an offset",
		ops(`0 ok send [[:send 1 [-1 2]]]`):                                "-1 is not an offset",
		ops(`0 ok poll [[:poll [1]]]`):                                     "not a map of keys",
		ops(`0 ok poll [[:poll {1 2}]]`):                                   "key 1 has 2, not a list of pairs",
		ops(`0 ok poll [[:poll {1 [2]}]]`):                                 "not a pair of offset and value",
		ops(`0 ok assign 12`):                                              "not a list of keys",
		"{:type :ok, :f :poll, :process 1, :value [], :rebalance-log 1}":   "is not a list",
		"{:type :ok, :f :poll, :process 1, :value [], :rebalance-log [1]}": "not a rebalance event",
	} {
		_, err := checkHistory(t, "h", content)
		require.ErrorIs(t, err, ErrUnusable, content)
		require.ErrorContains(t, err, want, content)
	}
	_, err := CheckHistory(background, HistoryOptions{Path: "/nowhere/at/all"})
	require.ErrorIs(t, err, ErrUnusable)
	_, err = checkHistory(t, "h.edn", "{:type :ok, :f :poll, :process 0, :value []}\n\n[oops")
	require.ErrorContains(t, err, "h.edn:3: ")
}
