// Package task is the step loop: the only place where a task makes a choice.
//
// A record's way through here: a worker hands received batches to Task.Deliver; Step chooses one (Propose), records the
// choice (causal.Choices.Next), decodes its elements one by one, runs them through the operator chain, and appends what the
// chain emits to the output channels, which are in-flight logs. A worker's link writer takes it from there.
//
// Invariants:
//   - every choice is in the task's determinant log before a batch that depends on it can be sealed;
//   - a step never spans a barrier, and timers, completions and checkpoints happen between steps only;
//   - what one element caused is appended to the outputs whole or not at all;
//   - while it replays, a task makes no choice; it swaps its Replayer for a Recorder at one line, Task.choices;
//   - processing time never goes back;
//   - an epoch's mode, which the barrier before it carried, says whether its choices are logged and its output is kept.
//
// One goroutine owns a Task and calls Step. Deliver, Trigger, Complete and the read-only accessors marked so may be called
// from others. Step never waits for a peer and starts no goroutine, so the simulator runs the same code.
package task
