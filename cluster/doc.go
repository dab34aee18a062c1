// Package cluster makes a running job of the parts below it: workers that host tasks and standbys, and a coordinator that
// decides about checkpoints and deaths.
//
// A record's way through here: Worker.Write collects the sealed batches that a peer has subscribed to, and behind them the
// delta of determinants; Worker.Receive merges the delta and delivers the batches to the tasks; Worker.Step runs a task's
// next step; Worker.WriteSink hands output, with its determinants, to a causal sink's store, or without them to a transactional
// one's, which shows it when its checkpoint is complete (transactions.go).
//
// A death's way: Worker or driver reports it; Coordinator asks standby.Decider, which proposes a Decision; once the ledger has
// committed it, every worker applies it (Worker.Apply), fences, and answers with its copies of the logs; the promoted worker
// gathers them (standby.Promotion), restores the state and starts the task, which replays.
//
// Worker and Coordinator start no goroutines and read no clock of their own: an Environment does that for them. Local is the
// environment of one process, with goroutines; the simulator has another, with one thread and one seed.
//
// Lock order: Worker.mu, then inflightlog.Log's, then causal.Store's. A task's Host callbacks Sealed and Taken come with an
// inflightlog.Log locked and take no lock of the worker.
package cluster
