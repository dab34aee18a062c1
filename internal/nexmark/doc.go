// Package nexmark is the field's streaming benchmark: a generator of persons, auctions and bids, a source of them for jobs,
// and the queries over them as a user of the engine would write them.
//
// The generator gives, byte for byte, the stream of Apache Beam's. An event is a function of its number and of the
// generator's [Config] alone, so a stream can be read from any place and be split over any number of readers. [Source] does
// that for a job. [Build] makes the job of a query; each query is in a file of its own or shares one with its like (q5.go), and
// has the meaning that Flink's Nexmark gives it. What SQL leaves open is settled, so that answers can be compared:
//
//   - of bids that tie in q9, q18 and q19, the one that comes first is that of the higher price, then the earlier time (in
//     q18, whose point is the last bid, the time is equal), then the lower bidder, then the lesser text;
//   - bids of Beam's stream have no channel, so q16 computes one from the bid ([Channel]);
//   - a query whose result changes while records come emits each changed row, which replaces the row of the same key. A
//     key's rows are written by one task, in order. Options.Final makes it emit each key's last row at the end instead.
//
// # Place on a record's way
//
// It stands where a user's program stands: above the engine, of which it sees what a user sees. Nothing below imports it.
//
// # Invariants
//
//   - Event number n is the same in every process, whatever was generated before it.
//   - A split's identity holds all that its events depend on, also the moment from which a paced source counts, so that a
//     successor reads the same events, and none earlier than they are due.
//   - Every answer but those of q12 and q12x, which ask for the time of day, is the same multiset in every run.
//
// # Goroutines
//
// A Generator, and a reader of a split, belong to one goroutine. A paced reader wakes its task from a timer. Codecs and
// Options may be shared.
package nexmark
