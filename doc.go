// Package understudy runs exactly-once stream pipelines that survive the death of any task or process by a local
// hand-over: tasks record each nondeterministic choice and hand the record on with their output, producers keep what they
// sent until the next checkpoint, and when a task dies its standby makes the same choices again and carries on. No output
// is lost, none is seen twice, and the tasks that did not fail never stop.
//
// A program builds a job from typed functions with package operator, names where records come from and where they go (for
// example with package connector/file), and calls Run.
//
// The method is causal logging (Alvisi and Marzullo, IEEE TSE 24(2), 1998) as Clonos (SIGMOD 2021) brought it to dataflow.
package understudy
