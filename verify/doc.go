// Package verify checks the output of a pipeline from outside, by reading its files.
//
// It stands at the very end of a record's way, behind the sink, and knows nothing of the engine: it imports none of the
// engine's packages, so that a fault in them cannot blind it. What it knows is what was fed in, what is visible now, and
// what must hold between the two.
//
// The checks are functions of one shape, from options to a [Report]:
//
//   - [CheckIDs]: each input id stands exactly once in the output.
//   - [CheckRunning]: per key, a running aggregate takes each value once, in order.
//   - [CheckEqual]: two sets of files hold the same records, in any order.
//   - [CheckDraws]: one draw per input id; the windows follow from the visible draws.
//   - [CheckHistory]: a history of sends and polls in the form of Jepsen's kafka workload has none of its anomalies.
//
// A report with violations is a result, not an error. An error means that there is no verdict: files that match nothing,
// cannot be read or are malformed (errors.Is [ErrUnusable]), a full disk, a cancelled context.
//
// # Memory
//
// A check sorts what it has to compare with [Sorter], an external merge sort: 256 MiB suffice for any number of records.
// The temporary file has no name on systems where an open file can be removed, so that even a killed process leaves
// nothing behind. Outside that budget stand only fixed buffers and the longest line. CheckHistory is the exception: it
// holds the history in memory, since the anomalies relate any two operations.
//
// # Order
//
// The sorter orders by a hash of the key, because the checks only need equal keys to meet. It is stable: records with one
// key come out in the order in which they were added. Reading the input before the output, file by file, is therefore
// enough for "first offender" and "in order" to mean what they say.
//
// # Goroutines
//
// A check may run beside any other check. Its Progress hook is called on the goroutine that called the check. A Sorter
// belongs to one goroutine; a second one, internal, writes full blocks to disk while the first is filled again.
package verify
