// Package determinant holds the words that every other package shares (tasks, epochs, cursors, modes) and the record of a
// choice, the determinant, with its byte format.
//
// On a record's way it stands at the bottom: a task writes one Determinant per choice, before the choice's effects can leave
// the task; package causal keeps the bytes and hands them on; a task's next incarnation reads them back and chooses the same.
//
// Invariants:
//   - The format is canonical: there is one encoding per determinant and state, so that decoding and encoding again gives the
//     same bytes. A Decoder refuses everything else.
//   - An Encoder and a Decoder that have passed the same KindMark are in the same state, and that state is the zero value's.
//     A log may therefore be cut, and read, at any mark, on either side of it.
//   - Decoding never panics, whatever the bytes, and never allocates.
//
// The format has its page in docs/format/determinant.md. All functions are pure; an Encoder and a Decoder belong to one
// goroutine each and may be copied.
package determinant
