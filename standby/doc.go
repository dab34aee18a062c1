// Package standby decides what happens when something dies. It is pure: events go in, effects come out, and there is no
// I/O, clock, goroutine, randomness or logger inside, so every story about failures can be told, and tested, in one thread.
//
// It stands beside a record's way and not on it: hardly anything here runs while nothing fails. Three parts:
//
//   - Topology answers questions about the graph: whose determinants a task may depend on (Upstream), and whether a set of
//     failed tasks can be recovered from what the others know (Recoverable).
//   - Decider is the coordinator's side. It collects reports of death, failure and progress and turns them into commands
//     for the ledger: Decision (the fence), AssignStandby, Recovered. It also plans what is no failure: a worker is freed
//     for maintenance (Drain), or tasks are evened out, by decisions that move tasks from workers that live.
//   - Promotion is the side of the worker that takes over a task: it gathers the copies of the dead task's log from
//     everybody that a decision names, checks them against one another, and says with which log to start.
//
// Cases is the table of what each combination of losses in each phase of a recovery leads to.
//
// # Invariants
//
//   - The Decider's replicated state changes in Apply alone, so a new leader that applied the same commands knows the same.
//     What workers merely reported is volatile; a new leader hears it again.
//   - A Decision takes effect only if nothing was applied since it was computed (Basis). The ledger thereby orders it
//     against checkpoints: it never names a checkpoint that is not the newest committed one.
//   - Rounds, generations and the incarnations of each task only rise; at most one incarnation of a task may run.
//   - A standby never shares a worker with its primary.
//   - A task counts as failed from the Decision that raises its incarnation until Recovered is applied, unless it was handed
//     over by a worker that lives, to one that lives.
//   - A standby moves only where that makes the spread of standbys more even, so moves come to an end.
//   - A draining worker gets nothing new that anybody else could take.
//   - All answers that a Promotion counts come from one round.
//
// # Goroutines
//
// Decider and Promotion each belong to one goroutine, their caller's. A Topology is never changed after Validate and may
// be read by many. Slices in events belong to the callee once passed in; slices in effects are shared and must not be
// changed.
package standby
