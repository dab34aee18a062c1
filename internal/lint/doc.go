// Package lint holds the rules of this repository that a compiler does not
// know, as ordinary Go tests: who may import whom, which choices a task may not
// make by itself, how long a file may grow, what may never be committed.
//
// It stands beside the record's way, not on it: nothing imports it, and it
// imports nothing of the engine. It looks at source text only, so it works on a
// tree in which some packages are still to be written.
//
// The data is where a reader looks first: [layers] and [modules] (imports.go),
// [bannedNames] (determinism.go), [limits] (shape.go), [machineTraces]
// (hygiene.go), and [exceptions] (rules.go), where every departure from a rule
// is written down with its reason.
//
// Invariants:
//   - Every rule carries the reason for it and prints it when it fails.
//   - Every rule has a test that plants the fault it looks for.
//   - An exception that no longer excuses anything is itself a failure.
//
// Everything runs on the goroutine of the test that calls it.
package lint
