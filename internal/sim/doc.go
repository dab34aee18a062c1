// Package sim runs whole jobs from one seed, in one goroutine: the real workers, coordinator, tasks, logs and stores, in a
// world of virtual time, delayed and reordered messages, crashes, pauses and failing disks.
//
// A World is one run. Each of its steps picks one action by the seed: step a task, write or deliver a message, run a disk
// job, commit an entry of the ledger, write to a sink. What the engine would leave to goroutines is left to the seed here,
// so a run that goes wrong goes wrong again.
//
// Faults (faults.go) and checkers (check*.go, history.go, replay.go) know nothing of each other. The checkers:
//   - replay: the visible output equals one failure-free execution, re-run from the determinants that survived;
//   - orphans: each batch carries the determinants that it depends on; whoever receives one holds them, a log that anybody
//     holds comes with what its choices were made on, and no recovery loses a determinant that somebody live depends on;
//   - the invariants of the protocol: copies of a log are prefixes of one another, sequence numbers go on across lives, time
//     does not go back, nothing is truncated before its checkpoint, checkpoints rise, one life writes;
//   - at full depth no rollback, no divergence, no failure but those that were planted;
//   - each input record is visible exactly once, counted by its id;
//   - in runs whose mode changes (modes.go): nothing is lost in any mode, a failure is recovered as the weakest epoch since
//     the last completed checkpoint allows, and what was shown is shown again only by recoveries without determinants;
//   - in runs whose sources grow (growth.go): a split is added in no epoch before its own, and before the first record of that epoch
//     is read, whoever died; all are read in the end;
//   - transactional sinks (transactions.go): nothing is visible before its checkpoint is complete, epochs follow one another, a
//     life writes only when what former ones left is settled, and nothing is left undecided at the end;
//   - in runs with drains (drain.go): a planned hand-over touches no other task, rolls nothing back at any depth, and ends; the
//     end of a worker that was drained touches nobody;
//   - when the faults are over, the job ends.
//
// Every checker is itself tested with planted faults, by running with single rules of the protocol switched off: see
// mutants_test.go.
package sim
