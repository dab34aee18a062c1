// Package bench measures the engine from outside, as its users meet it: jobs on processes, killed by kill -9, and a reader of the
// output who knows nothing of the engine but when a line became visible.
//
// Latency is open-loop: it counts from the time at which a record was due, whatever held its source up, so that a stall of the
// whole job shows in every record that came due meanwhile (Tene, "coordinated omission").
package bench
