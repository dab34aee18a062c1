// Package causal keeps the determinant logs that make a task's choices repeatable: a worker's own and what it has learned of
// others', the deltas by which workers tell each other, and the two ends of a task's log, Recorder and Replayer.
//
// On a record's way: a task asks its Choices for the header of its next step and for each choice within. A Recorder lets the
// task choose and appends the determinant to the task's Log before it returns, so before any effect. Just before a
// connection's writer puts frames on the wire it takes Store.Delta of the logs that the peer may depend on; the receiver
// merges it whole (Store.Merge) before any element of those frames can be chosen. After a death the logs that the live
// workers hold (Store.Copy) are merged and given to a Replayer, which makes the same choices again until they run out.
//
// Invariants:
//   - A log is bytes with absolute offsets from the job's start, holds whole determinants, and begins at an epoch's start.
//   - Always no orphans: whoever holds a determinant holds those that it was chosen on. Therefore the ends of logs are
//     captured downstream tasks first, and a delta is merged upstream tasks first, so that who captures in the middle of a
//     merge never sees a choice without its causes. Callers that read several logs with Copy or End keep the same order.
//   - A merge extends a log without a gap, and the overlap is equal. Only an offset that a committed checkpoint covers, or
//     another history of the task, may be jumped to.
//   - What a Replayer hands out encodes to the very bytes of the log.
//
// Goroutines: one appends to a Log, any number read it, and any may truncate it; readers and the appender take no lock.
// Store's methods may be called from anywhere, but the caller sees to it that no owner appends during Cut and Reset. A
// Recorder or Replayer belongs to its task's goroutine.
package causal
