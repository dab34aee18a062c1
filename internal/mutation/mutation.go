package mutation

import (
	"fmt"
	"strings"
)

// Set is a set of mutations. The zero value is the protocol as it should be.
type Set uint64

// The mutations, one per rule.
const (
	NoDelta Set = 1 << iota
	DeltaMergedLate
	DeltaUpstreamFirst
	HeaderLate
	HeaderOmitted
	CursorUnchecked
	FenceMissingAtReceiver
	FenceMissingAtWorker
	FenceMissingAtSink
	FenceMissingAtStoreRead
	OldRoundCounts
	OnlyDeadLogCollected
	OldAcksCount
	SinkAcknowledgesEarly
	InputAcrossBarrier
	TruncateBeforeCommit
	RestoreUncommitted
	ShortestPath
	RecoveringCountsAsLive
	LocalRuleOff
	TimeGoesBack
	OutputBeforeDeterminants
	SplitMoves
	AtLeastOnceCheckpointKept
	DeterminantsOff
	FormerWorkerForgotten
	NewWorkerForgotten
	StartWhileRecovering
	NewestModeCounts
	HistoriesOverlap
	DepthRaisedLate
	CollectionMissesOneWorker
	PromotionWithoutCommit
	RelinkKeepsCursor
	StoresNotRead
	GenerationUnchecked
	FallenStartAgain
	EarlySubscriptionDropped
	RegisterRepeatsNothing
	CommitBeforeComplete
	PrepareLeftOut
	AbortLeftOut
	AckBeforePrepare
	CommitNotRepeated
	FinishBeforeCommit
	SplitsAtOnce
	SplitsSorted
	TriggerBeforeEntry
	SkipUnlogged
	StandbyAhead
	EndKept
	PartForWhole
	SinceTooLate
	end
)

var names = [...]string{
	"no-delta", "delta-merged-late", "delta-upstream-first", "header-late", "header-omitted", "cursor-unchecked",
	"fence-missing-at-receiver", "fence-missing-at-worker", "fence-missing-at-sink", "fence-missing-at-store-read",
	"old-round-counts", "only-dead-log-collected", "old-acks-count", "sink-acknowledges-early", "input-across-barrier",
	"truncate-before-commit", "restore-uncommitted", "shortest-path", "recovering-counts-as-live", "local-rule-off",
	"time-goes-back", "output-before-determinants", "split-moves", "at-least-once-checkpoint-kept", "determinants-off",
	"former-worker-forgotten", "new-worker-forgotten", "start-while-recovering", "newest-mode-counts", "histories-overlap", "depth-raised-late",
	"collection-misses-one-worker", "promotion-without-commit", "relink-keeps-cursor",
	"stores-not-read", "generation-unchecked", "fallen-start-again", "early-subscription-dropped",
	"register-repeats-nothing",
	"commit-before-complete", "prepare-left-out", "abort-left-out", "ack-before-prepare", "commit-not-repeated", "finish-before-commit",
	"splits-at-once", "splits-sorted", "trigger-before-entry", "skip-unlogged", "standby-ahead", "end-kept", "part-for-whole", "since-too-late",
}

// Has tells whether any of m is in the set.
func (s Set) Has(m Set) bool { return s&m != 0 }

// All lists every mutation.
func All() []Set {
	var all []Set
	for m := Set(1); m < end; m <<= 1 {
		all = append(all, m)
	}
	return all
}

// String joins the names of the mutations in the set.
func (s Set) String() string {
	var parts []string
	for i, name := range names {
		if s.Has(1 << i) {
			parts = append(parts, name)
		}
	}
	return strings.Join(parts, ",")
}

// Parse is the inverse of String.
func Parse(text string) (Set, error) {
	var s Set
	for name := range strings.SplitSeq(text, ",") {
		found := name == ""
		for i := range names {
			if names[i] == name {
				s |= 1 << i
				found = true
			}
		}
		if !found {
			return 0, fmt.Errorf("mutation: unknown mutation %q", name)
		}
	}
	return s, nil
}
