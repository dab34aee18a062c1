package standby

import "strings"

// Phase says how far the recovery, or the hand-over, of one task is when something more dies.
type Phase uint16

// The phases. In the first and in the last three the task's first worker lives; in the others it is dead.
const (
	CheckpointUnderWay Phase = 1 << iota // the task runs; a checkpoint is started and not complete
	Deciding                             // a decision is proposed and not committed
	Collecting                           // committed; the new host gathers copies of the task's log
	Restoring                            // all copies are there; the checkpoint's state is not loaded yet
	Replaying                            // started; the log has not run out, or a consumer is ahead
	CaughtUpPhase                        // the ledger says Recovered
	Drains                               // the task's worker is to be drained, which waits for a checkpoint
	HandingOver                          // its tasks are fenced by a decision; their new hosts gather copies of their logs
	TakingOver                           // started at the new host; the log has not run out, or a consumer is ahead
	anyPhase           = running | recovering | handedOver
	running            = CheckpointUnderWay | CaughtUpPhase | Drains
	recovering         = Deciding | Collecting | Restoring | Replaying
	handedOver         = HandingOver | TakingOver
	notStarted         = Deciding | Collecting | Restoring | HandingOver
)

// Loss is a set of what is lost at once.
type Loss uint8

// What can be lost. Primary is the worker that runs the task or, from Deciding on, the one chosen to run it. Standby is every
// standby that holds its state. Former is the worker that handed the task over, while it is HandingOver or TakingOver; it holds
// the state too. Holder is the worker of the task downstream, the one live process that holds the task's
// determinants. Leader leads the coordinator. Store is the causal store of the sink behind the holder: it never dies, but it
// may be out of reach.
const (
	Primary Loss = 1 << iota
	Standby
	Holder
	LeaderLost
	Store
	Former
	allLosses = Primary | Standby | Holder | LeaderLost | Store | Former
)

// String joins the names of what is lost.
func (l Loss) String() string {
	if l == 0 {
		return "nothing"
	}
	var parts []string
	for i, name := range []string{"primary", "standby", "holder", "leader", "store", "former"} {
		if l&(1<<i) != 0 {
			parts = append(parts, name)
		}
	}
	return strings.Join(parts, "+")
}

// String joins the names of the phases.
func (p Phase) String() string {
	var parts []string
	for i, name := range []string{"checkpoint", "deciding", "collecting", "restoring", "replaying", "caught-up", "drains", "handing-over",
		"taking-over"} {
		if p&(1<<i) != 0 {
			parts = append(parts, name)
		}
	}
	return strings.Join(parts, "|")
}

// Fate is what becomes of the task.
type Fate uint8

// The fates.
const (
	Untouched   Fate = iota // it runs on and notices nothing
	Continues               // its recovery goes on where it is, same incarnation
	Recollects              // the same, but the copies of its log are gathered anew
	Promoted                // a higher incarnation starts on the next standby
	AwaitsStore             // its promotion waits until the causal store can be read
	Waits                   // it is fenced and waits for a worker that has its state
	RolledBack              // the whole job goes back to the committed checkpoint
)

// String gives the fate's name.
func (f Fate) String() string {
	return [...]string{"untouched", "continues", "recollects", "promoted", "awaits store", "waits", "rolled back"}[f]
}

// Case is one row of the table: in any of Phases, if all of Lost and none of Kept are lost (the rest may be), and the
// sharing depth covers one failed task (Shallow), or every failed path (Deep), or either, this is the task's fate.
type Case struct {
	Label  string
	Phases Phase
	Lost   Loss
	Kept   Loss
	Depth  Coverage
	Fate   Fate
	Why    string
}

// Coverage says which sharing depths a case is about.
type Coverage uint8

// The coverages.
const (
	EitherDepth Coverage = iota
	Deep                 // full depth, or at least the longest failed path
	Shallow              // one hop
)

// matches tells whether the case covers this situation.
func (c Case) matches(p Phase, l Loss, depth Coverage) bool {
	return c.Phases&p != 0 && l&c.Lost == c.Lost && l&c.Kept == 0 && (c.Depth == EitherDepth || c.Depth == depth)
}

// Find gives the one case of a situation.
func Find(p Phase, l Loss, depth Coverage) Case {
	for _, c := range cases {
		if c.matches(p, l, depth) {
			return c
		}
	}
	panic("standby: the table has no case for " + p.String() + " with " + l.String() + " lost")
}

// Cases gives the table: every combination of losses in every phase, each in exactly one row.
func Cases() []Case { return append([]Case(nil), cases...) }

// worker losses bring a new round each; the leader's and the store's do not.
const workerLosses = Primary | Standby | Holder | Former

var cases = []Case{
	// The task runs and keeps running.
	{"nothing", running, 0, allLosses, EitherDepth, Untouched,
		"Nothing dies and nothing happens."},
	{"store of a running job", running, Store, workerLosses | LeaderLost, EitherDepth, Untouched,
		"The sink holds its output and its acknowledgement back, so no checkpoint completes and nothing is truncated."},
	{"leader of a running job", running, LeaderLost, workerLosses, EitherDepth, Untouched,
		"Records flow without a leader; the next one applies the same commands and triggers the checkpoint again."},
	{"standby", running, Standby, Primary | Holder, EitherDepth, Untouched,
		"It is declared dead, which touches no task; another worker is assigned, and the checkpoint stops waiting for its copy."},
	{"holder of a running task's log", running, Holder, Primary, EitherDepth, Untouched,
		"The task lives and so does its log; the holder's own task is promoted elsewhere and is handed the determinants again."},

	// The task's own worker dies, in whatever phase.
	{"primary", anyPhase, Primary, Standby | Holder | Store, EitherDepth, Promoted,
		"The next standby takes over with what the holder and the store know; what the dead incarnation acknowledged is void."},
	{"primary, store", anyPhase, Primary | Store, Standby | Holder, EitherDepth, AwaitsStore,
		"The next standby has its place at once but may not start: the store may know more than anyone alive."},
	{"primary and standbys", running | recovering, Primary | Standby, Holder, EitherDepth, Waits,
		"The task is fenced at once and its neighbours run on; whoever comes with its state gets it, in a later round."},
	{"primary and holder, deep", anyPhase, Primary | Holder, Standby | Store, Deep, Promoted,
		"Both tasks recover side by side: neither is asked for its log, and the store behind them knows both."},
	{"primary, holder, store, deep", anyPhase, Primary | Holder | Store, Standby, Deep, AwaitsStore,
		"Both tasks have their places; both wait for the store, the only one that knows what was shown."},
	{"primary, standbys, holder, deep", running | recovering, Primary | Standby | Holder, 0, Deep, Waits,
		"The holder's task is promoted and subscribes; it is served once somebody comes with this task's state."},
	{"primary and holder, shallow", running | handedOver, Primary | Holder, 0, Shallow, RolledBack,
		"The path through two failed tasks to the store is longer than determinants were handed on: nobody may guess."},

	// The task recovers and its host lives.
	{"nothing more", recovering | handedOver, 0, allLosses, EitherDepth, Continues,
		"Every live worker and the store answer, the longest copy is replayed, and the task goes on where it ended."},
	{"leader, decision in flight", Deciding, LeaderLost, workerLosses | Store, EitherDepth, Continues,
		"Its proposal may be in the ledger or not: the next leader decides again, and the later of the two has lost its basis."},
	{"leader, decision committed", Collecting | Restoring | Replaying | handedOver, LeaderLost, workerLosses | Store, EitherDepth, Continues,
		"A promotion needs no leader; the next one repeats the decision, which changes nothing, and hears CaughtUp again."},
	{"store, not read yet", Deciding | Collecting | HandingOver, Store, workerLosses, EitherDepth, AwaitsStore,
		"The store is asked until it answers; a start without it could contradict what it has shown."},
	{"store, read", Restoring | Replaying | TakingOver, Store, workerLosses, EitherDepth, Continues,
		"It has answered in this round and nobody died since, so its answer counts."},
	{"standby of a task that has not started", notStarted, Standby, Primary | Holder | Store, EitherDepth, Recollects,
		"A death begins a new round: an answer of the old one does not show what its giver learned after it."},
	{"standby and store, not started", notStarted, Standby | Store, Primary | Holder, EitherDepth, AwaitsStore,
		"The new round asks the store again, whatever it said in the old one."},
	{"standby of a task that replays", Replaying | TakingOver, Standby, Primary | Holder, EitherDepth, Continues,
		"The log is complete and here; only another standby is assigned."},
	{"holder, deep, not started", notStarted, Holder, Primary | Store, Deep, Recollects,
		"The holder's copy may be lost with it; nobody alive depends on more than the others and the store can tell."},
	{"holder and store, deep, not started", notStarted, Holder | Store, Primary, Deep, AwaitsStore,
		"With the holder gone the store alone knows the task's last determinants."},
	{"holder, deep, replaying", Replaying | TakingOver, Holder, Primary, Deep, Continues,
		"The task replays on; the holder's task is promoted, asks it for its log, and resubscribes to what it regenerates."},
	{"holder, shallow", recovering, Holder, 0, Shallow, RolledBack,
		"A recovering task counts as failed: two failed tasks in a row are more than one hop covers."},

	// The task was handed over by a worker that lives: it is not lost as long as that worker and the new one live.
	{"former worker, not started", HandingOver, Former, Primary | Standby | Holder | Store, EitherDepth, Recollects,
		"Its answer may be lost with it. The task has failed like any other now, and the holder knows what is needed."},
	{"former worker and store, not started", HandingOver, Former | Store, Primary | Standby | Holder, EitherDepth, AwaitsStore,
		"The same, and the new round asks the store again."},
	{"former worker, taking over", TakingOver, Former, Primary | Standby | Holder, EitherDepth, Continues,
		"Its answer is merged and the task replays on; a path of one failed task is never too long."},
	{"holder, shallow, not started", HandingOver, Holder, Primary | Former | Store, Shallow, Recollects,
		"Only the holder's task has failed: the former worker has the whole log and answers again."},
	{"holder and store, shallow, not started", HandingOver, Holder | Store, Primary | Former, Shallow, AwaitsStore,
		"The same, and the new round asks the store again."},
	{"holder, shallow, taking over", TakingOver, Holder, Primary | Former, Shallow, Continues,
		"Only the holder's task has failed. It is promoted, and asks both hosts of this one for its log."},
	{"former worker and holder, shallow", handedOver, Former | Holder, Primary, Shallow, RolledBack,
		"Nobody here knows whether the former worker's answer has arrived: two failed tasks in a row are more than one hop covers."},
	{"new host and standbys", handedOver, Primary | Standby, Former | Holder | Store, EitherDepth, Promoted,
		"The former worker has the state: it gets the task back, though it is to be drained, and hands it over again later."},
	{"new host, standbys, store", handedOver, Primary | Standby | Store, Former | Holder, EitherDepth, AwaitsStore,
		"The same, but what the new life may have shown is in the store."},
	{"new host, standbys, holder, deep", handedOver, Primary | Standby | Holder, Former | Store, Deep, Promoted,
		"Both tasks recover side by side, this one at its former worker."},
	{"new host, standbys, holder, store, deep", handedOver, Primary | Standby | Holder | Store, Former, Deep, AwaitsStore,
		"The same, and both wait for the store."},
	{"new host, standbys, former", handedOver, Primary | Standby | Former, Holder, EitherDepth, Waits,
		"Everyone who had the state is dead."},
	{"new host, standbys, former, holder, deep", handedOver, Primary | Standby | Former | Holder, 0, Deep, Waits,
		"The same; the holder's task is promoted and waits to be served."},
}
