// Package postgres reads rows of PostgreSQL and shows output in a table exactly once.
//
// The source stands at the head of a record's way. Rows cuts a table or query into ranges of a whole-numbered key and reads a
// range again from any key. It can also follow a table to which rows are added. Decoded and DecodedJSON turn rows into records.
//
// The sink stands at its end. Sink gives a table to which each sink task adds rows. Beside it are three tables of the sink's own:
// whose output it is, one row per task that says who may write and where the output ends, and the determinants.
// docs/connectors/postgres.md says what may fail and what happens then.
//
// Invariants:
//
//   - Atomic: a write's rows, its determinants and the new end of the output are stored by one statement. It is a
//     transaction of its own, or, where the writer does not know the task's row, in one that locks the row first.
//   - One writer: that statement changes the task's row from the very state that the writer knows, or does nothing at all. Every
//     write and every Fence leaves another state, so a statement that reaches the server late finds a row that does not fit.
//   - Read back: the outcome of a statement whose answer was lost is what the task's row says.
//   - Horizon: a source that follows reads a key only when no row with a smaller one can be committed any more (follow.go).
//   - Silent: no error shows a password.
//
// A server that cannot be used is waited for, as long as it takes; an error that no other try can mend ends the job.
//
// Goroutines: each Reader has one, which asks the server for pages; a Fence has one while it waits. A Source, an Output and its
// stores may be used from several goroutines and processes, a Reader from one. The lock order is store.layout, store.mu,
// session.mu; Output.mu is held alone.
package postgres
