// Package bench measures the engine.
//
// `bench recovery` ([Recover]) does so from outside, as users meet it: jobs on processes, killed by kill -9, and a reader of the output who
// knows nothing of the engine but when a line became visible. Latency is open-loop: it counts from the time at which a record was due,
// whatever held its source up, so that a stall of the whole job shows in every record that came due meanwhile (Tene, "coordinated
// omission"). Which rows a query must show, and by when, a plain program says (golden.go).
//
// `bench overhead` ([MeasureOverhead]) and `bench baseline` ([MeasureBaseline]) compare, in one process, ways of running the queries of
// Nexmark: with and without logging, and on the engine and in plain Go (package plain). The ways take turns, and only what was
// measured in the same repeat is divided by one another.
//
// # Invariants
//
//   - What is compared has come to the same result: otherwise there is an error, [ErrDisagree], and no figure.
//   - A run counts only if nothing befell it: no task was restarted, moved or rolled back.
//   - The ways of running a query differ in what they log and in nothing else: the same workers, standbys, checkpoints, memory and sink.
//   - A run of a comparison finds the process as every other does, whatever ran before: no garbage, and its memory there. What the process
//     still does to a run, [Again] shows.
//
// # Goroutines
//
// Each Measure function and Recover may be called once at a time: they measure the whole process.
package bench
