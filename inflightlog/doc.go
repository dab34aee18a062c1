// Package inflightlog makes an output channel of a task the log of what was sent on it.
//
// On a record's way it stands between the operators' output and the consumer: a task appends encoded elements, the log cuts
// them into immutable batches, and the consumer's side reads the batches from wherever the consumer says it is. Live
// delivery, replay after the consumer failed and resumption after the producer failed are therefore one code path, and the
// consumer's cursor is all the deduplication there is. Batches stay until the caller says that the checkpoint after them is
// committed; what does not fit into memory meanwhile spills to segment files and comes back with read-ahead.
//
// # Invariants
//
//   - Sequence numbers are contiguous: each batch starts where the one before it ended.
//   - An element's bytes depend on the element alone; where batches are cut means nothing.
//   - A batch never spans epochs, and barrier e ends epoch e. The end of epoch e and the start of epoch e+1 are one position,
//     whose cursor is (seq, e+1, 0 bytes, checksum 0).
//   - A sealed batch never changes. Whoever got one keeps it for as long as it likes; truncation only forgets it.
//   - Nothing of an epoch beyond the one that the caller named is truncated, and nothing that was not truncated is lost.
//     (Without retention a batch goes when it has been sent.)
//   - Spilled batches are the oldest of their log: the log is a part on disk followed by a part in memory.
//   - A consumer is served only from a position where number, epoch, bytes and checksum agree with the log's.
//
// # Goroutines
//
// A Log has three users, each at most one goroutine at a time.
//
//   - The task appends: Record, Control, Commit, Rewind, Seal, Retain, End, Pending, Ahead. It owns the open batch, which
//     nobody else sees, so appending takes no lock and allocates nothing but a buffer per batch. The internal mutex is taken
//     per sealed batch. Spilling happens here, in the call that seals.
//   - The consumer's side reads: Subscribe, Adopt, Unsubscribe, Next, Grant, Outstanding. Subscribe and Unsubscribe may race
//     with Next (a fence does that): the newest subscription wins.
//   - Anyone: Sealed, Subscribed, Unsent, Truncate, Retained. Close comes last.
//
// The mutex is never held during I/O or a callback. Lock order: Log before Budget.
package inflightlog
