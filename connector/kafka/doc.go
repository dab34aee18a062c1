// Package kafka reads topics of Apache Kafka, and shows output in them exactly once.
//
// The source stands at the head of a record's way. Records reads the committed records of topics, a split per partition, and reads a
// split again from any offset that it gave. Decoded and JSON turn records into values.
//
// Two sinks stand at its end. Sink is causal: each write is one transaction of output and determinants, so that output can be read
// milliseconds after it was computed, and the brokers answer for every task upstream when all processes have died. Transactional holds an
// epoch's output back in a transaction that is committed with its checkpoint. Both keep a journal beside the topic, one partition of
// another topic per sink task. docs/format/kafka-sink.md has its bytes, docs/connectors/kafka.md what may fail and what happens then.
//
// Invariants:
//
//   - Covered: output and the entry with its determinants are in one transaction. Nobody reads the one without the other.
//   - One writer: a transactional id has one producer. Who takes it over first waits until what the former one had open was ended,
//     then reads the journal, and only then writes; what the former one sends later, the brokers refuse.
//   - Journal first: what came of a transaction whose answer was lost, the journal tells, and nothing else is believed.
//   - Undisturbed: who is behind the journal's incarnation, or another job, is told by reading, before it takes the producer away from
//     anyone.
//   - Prepared: a transactional id with a prepared transaction gets no new producer before the register says how it ended.
//   - Whole: a reader hands out every committed record of its split in order, or an error; offsets that hold none are passed over.
//
// Goroutines: a sink starts none but those of its clients. Its stores may be used from several goroutines; calls for one task wait for
// each other. A Source may be used from several goroutines, a Reader from one; readers of a process share clients, and a goroutine
// for each client hands them what was fetched. The lock order is outlet.mu, the turn of a part or desk, part.mu; and Source.mu,
// consumer.mu, reader.mu.
package kafka
