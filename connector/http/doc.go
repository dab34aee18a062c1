// Package http takes records in by HTTP and gives them out by HTTP.
//
// HTTP cannot be read again, so a source of HTTP requests needs a log. A Server takes POSTs of JSON lines and acknowledges a
// request when its lines are on disk here and, where there are several servers, on the disk of a second one. Each server owns one
// log; the next server in the list keeps the copy. A Source has the logs as its splits and reads each from its owner, or from the
// copy while the owner does not answer: an offset is the number of lines before it, the same on both.
//
// The other end is Webhook, a causal sink that posts records to a URL. The receiver cannot store determinants, so a journal beside
// the sink does; what the receiver gets is at least once, with an id per record that is the same each time.
//
// Invariants:
//
//   - Acknowledged: a request is answered with 200 only when its record is synced in the owner's log and in the copy.
//   - Readable: a reader is given only what is synced in both. So it stays, whichever of the two answers next.
//   - One writer: the keeper of the copy knows the owner's term and refuses lower ones; an owner that was replaced, on this machine
//     or another, acknowledges nothing more.
//   - One home: all requests with one idempotency key go into one log. Who finds the key there says so instead of taking the
//     request again.
//   - Covered: the determinants of what a webhook posts are in its journal, and the journal is not replaced, before it is posted.
//
// Goroutines: a Server has one that writes its log and one for upkeep beside those of net/http; a Reader has one that reads
// ahead. Everything exported may be used from several goroutines, except a Reader. docs/connectors/http.md says what may fail and what
// happens then, docs/format/http.md has the bytes.
package http
