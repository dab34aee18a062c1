// Package nats reads streams of NATS JetStream and shows output in them exactly once.
//
// The source stands at the head of a record's way. Messages reads streams by sequence: a split is a stream, one subject of it, or a
// range of sequences, and an offset is the sequence of the last message read. Decoded and JSON turn messages into records.
//
// The sink stands at its end. Each sink task has a stream of its own, of which it is the only writer. Its records are plain
// messages on the task's subject. The determinants that they depend on are in the same stream, on a hidden subject, so that the
// stream answers for every task upstream when all processes have died. docs/format/nats-sink.md has the bytes,
// docs/connectors/nats.md what may fail and what happens then.
//
// Invariants of the sink:
//
//   - Covered: visible output never goes beyond stored determinants. The frame of a write comes before its records in one
//     stream, and each message of a write is stored only directly behind the one before it.
//   - Linked: a message is stored only if the stream's last sequence is the one that the writer knows, or its last message is the
//     one that the writer sent before. So the first message that is not stored ends the write, whatever is under way behind it.
//   - Fenced: an incarnation begins with a head, stored on the same condition. From then on no message of an earlier one is
//     stored, however late it comes.
//   - Whole: frames are numbered. One that is missing is ErrLost, never a gap that nobody sees.
//
// Goroutines: the sink starts none of its own; a Reader of the source has one that fetches ahead, which ends with Close. The client's
// library has its own for each connection. A Sink and its stores may be used from several goroutines and several processes. The
// lock order is part.turn, which is held while the server is waited for, Sink.mu, link.mu.
package nats
