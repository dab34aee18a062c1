// Package transport says what crosses a link between two workers, and in which order.
//
// On a record's way: the producer's worker fills a Message just before it is sent (cluster.Worker.Write): frames of sealed
// batches first, then the delta of all determinant logs that the peer may depend on. The receiver merges the delta, whole,
// before it hands any of the frames to a task. Deltas are opaque bytes here.
//
// Invariants: there is one ordered stream of messages per pair of workers and direction; a message is delivered whole or not
// at all; what was sent before a stream broke may be lost, and is then asked for again by a Subscription's cursor.
package transport
