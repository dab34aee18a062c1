// Package checkpoint takes, keeps and completes checkpoints.
//
// A checkpoint is the state of every task at one barrier. On a record's way it stands at the side: a task that has the
// barrier on all inputs freezes what changed and goes on; the frozen part becomes an image here, the image goes into the
// stores of the workers that run the task and stand by for it, they acknowledge, and when all have, the checkpoint is
// committed in the ledger and the stores make the images their committed state. After a failure a task is restored from
// there. The package has three parts, each of which knows nothing of the other two:
//
//   - image.go, imagereader.go, meta.go: the byte form of one task's snapshot (Encode, Verify, Entries);
//   - store.go and its neighbours: Store, one worker's images and committed state, as files;
//   - coordinator.go, state.go, command.go, event.go: State, what the ledger has committed about checkpoints, and
//     Coordinator, which decides what to commit next.
//
// Invariants:
//   - A store holds one committed checkpoint per task, and never restores another. An incremental image is folded only on
//     exactly the checkpoint that it is relative to.
//   - An image counts only for the incarnation that took it: Commit names one per task.
//   - At each moment at most one checkpoint is under way. Each is completed or abandoned, never both; State.Apply decides
//     which, in ledger order, wherever the ledger is followed.
//   - A checkpoint completes only with acknowledgements of the present incarnation of every task.
//   - Each Start names the mode and sharing depth of the epoch that its barrier opens. While a task recovers, none counts unless
//     all epochs since the committed checkpoint are exactly-once, that one included.
//   - Nothing may be truncated, and no output of an epoch made final, before its Complete is committed.
//
// Goroutines: a Store may be called from any. A Coordinator and a State belong to whoever follows the ledger. Encode runs
// on any goroutine off the task's own.
package checkpoint
