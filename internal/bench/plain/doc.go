// Package plain has some of the Nexmark queries as one would write them in Go without an engine, to see what a machine could do at best:
// goroutines, channels of batches, maps, and nothing that survives a failure.
//
// They read the same events as the jobs, over the same number of source goroutines, hand them to as many workers by the same keys, and
// give the same rows, byte for byte. They are meant to be fast, but not to be clever: what a good programmer writes in an afternoon. Values
// cross channels as they are, in reused batches; nothing is encoded but the rows. Each program is short, and is not generated from
// anything: see q0 for the simplest.
//
// # Place on a record's way
//
// There is no record of the engine here: the package must not import it.
//
// # Goroutines
//
// Run starts a program's goroutines and returns when all have ended. The functions that Options.Out gives are each called from one
// goroutine.
package plain
