// Package timers keeps a task's timers, of processing time or of event time: which are set, which fires next, and what
// changed since the last checkpoint.
//
// On a record's way it stands beside the operators: they register timers while they process a record, and the task pops
// those that are due, in a Timers step or when the watermark rises. The package reads no clock: the caller passes the time,
// so that a replayed task fires the same timers in the same order.
//
// Invariants:
//   - Timers fire in the order (time, registration), in whatever order they were restored.
//   - A timer is kept once for each (time, key, tag).
//   - A timer registered during a firing does not fire within it (Pop's bound), even if it is due.
//   - Memory is bounded by the most timers that were ever set at once, plus those of the last Freeze that are gone since:
//     setting and deleting in turn costs nothing.
//
// A Queue belongs to one goroutine. What Freeze returns belongs to the caller.
package timers
