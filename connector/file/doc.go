// Package file reads lines from files and shows output in them exactly once.
//
// The source stands at the head of a record's way. Lines cuts files into splits, byte ranges that each own the lines that
// start in them, and reads a split again from any offset that it gave. Decoded and JSONL turn lines into records.
//
// The sink stands at its end. Sink gives a directory in which each sink task appends lines to plain files that anyone may
// read while they grow. Beside it, hidden, lie the determinants that the lines depend on, so that the directory answers for
// every task upstream when all processes have died. docs/format/file-sink.md has the bytes, docs/connectors/file.md what
// may fail and what happens then.
//
// Invariants:
//
//   - Covered: visible output never goes beyond stored determinants. A frame is in the sidecar before its lines are shown.
//   - Append-only: the output is only ever appended to, except at a Cut. What a torn write left behind is compared with what
//     is written next, and only the rest is appended.
//   - Sealed: a segment of the sidecar counts up to the length that its successor names. What a replaced writer adds
//     later is not there.
//   - One writer: files come and go by the pen of the present turn only, and a write's files were opened before the last look at it.
//   - Cut at lines: a file of a stream begins where the one before it ends, at a line, and only the last one grows.
//
// Goroutines: the package starts none. A Source may be used from several goroutines, a Reader from one. A Directory and
// its stores may be used from several goroutines and, with one Identity, from several processes on one machine. The lock
// order is Directory.mu, part.mu, fence lock, writer lock; the last two are flocks on files, hold between processes, and are not there in a
// shared directory.
package file
