// Package operator is what users write with: typed streams, operators on them, keyed state, timers, windows, sources and
// sinks. It compiles a job into a [Plan] of vertices, each a chain of operators that call one another directly, and the
// step loop in package task runs one [Chain] per task.
//
// # Place on a record's way
//
// The step loop takes an element from a channel and hands its bytes to Chain.Record. The chain decodes them once
// (some before their turn: see foresight), passes the typed value from operator to operator by plain calls, and encodes it once at the end
// into an [Output]. A source vertex starts at its [SourceHead] instead; a vertex that ends in a sink, causal or transactional, writes to
// Runtime.External.
//
// # Invariants
//
//   - What a chain emits is a function of its restored state, the sequence of calls on it, and what [Runtime] answers. There is
//     no clock, random number, goroutine or map order in it that is not asked of Runtime.
//   - The bytes of a record depend on the record alone: default codecs sort every map and refuse types that they can't encode
//     in one way only.
//   - State is replaced and never changed in place once it has been frozen without a copy, so that a checkpoint is encoded while the task
//     goes on. Freezing costs no more than what has changed.
//   - The engine's own work allocates nothing per record; user functions and reflective codecs may.
//
// # Goroutines
//
// A Job is built by one goroutine. A Plan is immutable and may be shared. A Chain with its Tables belongs to one task's
// goroutine, except that Frozen.Entries runs elsewhere and SourceHead.Ready and SourceHead.Waiting may be called from anywhere. Codecs are shared by
// all tasks of a process and must be safe for concurrent use. The functions given to AsyncMap run on goroutines of the
// runtime; every other user function runs on the task's goroutine. A source whose readers may have to wait has a goroutine for
// each of them that passes on their wake-ups, until SourceHead.Close.
package operator
