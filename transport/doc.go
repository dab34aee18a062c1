// Package transport connects the processes of a cluster: the handshake by which they know each other, connections that carry
// frames, the bytes of a Message, and the links between workers. docs/format/wire.md has the formats.
//
// On a record's way: the producer's worker fills a Message just before it is sent (cluster.Worker.Write): frames of sealed
// batches first, then the delta of all determinant logs that the peer may depend on. A link's writer gathers messages and sends
// them with one system call, payloads where they are. At the other end a reader takes as much as the system has, checks each
// frame, and hands the message to the receiver, who merges the delta, whole, before it hands any of the frames to a task. Deltas
// are opaque bytes here. A payload stays in the memory into which it was read; that memory is never reused.
//
// Layers, from below: vector and chunk (bytes out and in), Conn (frames), Security and Server (who may connect), assembler
// (messages), outbox and inbox (items that outlive connections), line (one connection after the other), Mesh (all links of a
// worker). A Conn serves other purposes too: whoever handles a Hello decides.
//
// Invariants:
//   - There is one ordered stream of messages per pair of workers and direction, which is one connection. A message is delivered
//     whole or not at all. What was sent before a stream broke may be lost, and is then asked for again by a Subscription's
//     cursor.
//   - Endpoint.Relink stands between two streams on both ends: nothing of the former is received after it.
//   - An item is handed on once, in order within its class, as long as both workers have each other for a peer.
//   - Nothing is believed of a stranger: before the proof, a connection has a deadline, a place in a bounded queue, and less than
//     64 KiB.
//   - Every length from the wire is bounded, and memory follows the bytes that have come.
//
// Goroutines: a Server has one that accepts and one per connection. A Mesh has, per peer and connection, a reader, which calls
// Endpoint.Receive, and a writer, which calls Endpoint.Write; on the side that dials, one that dials and then reads; and, while
// items are there, one per class that calls Endpoint.Control. Relink and Linked come from the reader. For the worker itself
// messages and items are passed on without a connection.
//
// Locks are held for a few lines and never while the Endpoint is called: Mesh.mu, then peer.mu; boxes, then courier.mu, then
// peer.mu or loopback.mu.
package transport
