package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// journal is the partition in which a sink task keeps what belongs to its output, and the right to write to it. Entries are written
// in transactions of one transactional id, so that they, and the output that is written with them, are there whole or not at all.
//
// Invariant: when acquire returns, no transaction of an earlier producer can still be committed, and read gives the entries of
// all that were.
//
// A journal is used by one goroutine at a time.
type journal struct {
	brokers  *brokers
	at       place
	txid     string
	options  *SinkOptions
	producer *kgo.Client // nil if the right to write has to be acquired
	close    func()      // closes it, once
}

// An entry longer than chunkBytes is cut into several records; the first byte of each says whether more follow.
const (
	chunkBytes = 256 << 10
	chunkLast  = 0
	chunkMore  = 1
)

// acquire takes the right to write away from whoever has it: the brokers abort what that producer has open, finish what it has
// decided to commit, and refuse it from now on. It waits for that.
func (j *journal) acquire(ctx context.Context) error {
	j.release()
	p, err := j.options.Client.NewClient(
		kgo.TransactionalID(j.txid), kgo.TransactionTimeout(j.options.JournalTimeout), kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(int32(j.options.MaxMessageBytes)), kgo.RecordPartitioner(chosenPartition{}),
		kgo.ProducerBatchCompression(j.options.codec()), kgo.UnknownTopicRetries(-1), kgo.MaxBufferedRecords(bufferedRecords),
	)
	if err != nil {
		return err
	}
	if _, _, err := p.ProducerID(ctx); err != nil {
		p.Close()
		return judged(fmt.Errorf("transactional id %q: %w", j.txid, err))
	}
	j.producer, j.close = p, sync.OnceFunc(p.Close)
	return nil
}

// bufferedRecords bounds what one call of a sink hands to its client at a time; further records wait.
const bufferedRecords = 64 << 10

// release forgets the producer. What it has open stays open until acquire, here or elsewhere, or until the brokers lose patience.
func (j *journal) release() {
	if j.producer != nil {
		j.close()
		j.producer = nil
	}
}

// commit writes output and an entry in one transaction. It gives the entry's offset, and from where to read what follows it. After an error the producer is gone, and only
// acquire and read tell whether the transaction was committed.
func (j *journal) commit(ctx context.Context, output []*kgo.Record, entry []byte) (offset, next int64, err error) {
	p := j.producer
	defer func() {
		if err != nil {
			j.release()
		}
	}()
	stop := context.AfterFunc(ctx, j.close) // the client goes on with what it has sent, whatever its context says
	defer stop()
	if err := p.BeginTransaction(); err != nil {
		return 0, 0, judged(err)
	}
	chunks := j.chunks(entry)
	if err := p.ProduceSync(ctx, append(output[:len(output):len(output)], chunks...)...).FirstErr(); err != nil {
		return 0, 0, j.ended(ctx, err)
	}
	if err := settled(ctx, p, append(output[:min(1, len(output)):min(1, len(output))], chunks[0])...); err != nil {
		return 0, 0, err
	}
	if err := p.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return 0, 0, j.ended(ctx, err)
	}
	return chunks[0].Offset, chunks[len(chunks)-1].Offset + 1, nil
}

// settledPoll is the time between two looks of settled.
const settledPoll = 50 * time.Microsecond

// settled waits until the client itself has noted the partitions of the topics that it has produced these records to. It does so some time after the first records
// of a topic were sent, so that the brokers' answer may come before; EndTransaction goes by these notes (franz-go 1.22), and
// without them it aborts what it was asked to commit, and returns no error.
func settled(ctx context.Context, p *kgo.Client, records ...*kgo.Record) error {
	for _, r := range records {
		for {
			leader, epoch, err := p.PartitionLeader(r.Topic, r.Partition)
			if leader >= 0 || epoch >= 0 || err != nil {
				break
			}
			if err := sleep(ctx, settledPoll); err != nil {
				return err
			}
		}
	}
	return nil
}

// ended gives the cause of an error: if ctx has ended, that.
func (j *journal) ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("kafka: %w", cause)
	}
	if errors.Is(err, kgo.ErrClientClosed) {
		return ErrClosed
	}
	return judged(err)
}

// chunks makes records of an entry.
func (j *journal) chunks(entry []byte) []*kgo.Record {
	size := min(chunkBytes, j.options.MaxMessageBytes/2)
	var out []*kgo.Record
	for first := true; first || len(entry) > 0; first = false {
		n := min(len(entry), size)
		kind := byte(chunkLast)
		if n < len(entry) {
			kind = chunkMore
		}
		out = append(out, &kgo.Record{Topic: j.at.topic, Partition: j.at.partition, Value: append([]byte{kind}, entry[:n]...)})
		entry = entry[n:]
	}
	return out
}

// errOutdated says that entries which were not read yet are no longer there: whoever knows those before them must begin anew.
var errOutdated = errors.New("kafka: the journal has let go of entries that were not read")

// read visits the committed entries from an offset on, with the offset of each, and gives where the partition begins and where to go
// on. With all set, it waits until every transaction that has reached the partition by now has been ended.
func (j *journal) read(ctx context.Context, from int64, all bool, visit func(offset int64, entry []byte) error) (start, next int64, err error) {
	if start, err = j.brokers.offset(ctx, j.at, atStart, false); err != nil {
		return start, from, err
	}
	if from > 0 && start > from {
		return start, from, errOutdated
	}
	end, err := j.end(ctx, all)
	if err != nil {
		return start, from, err
	}
	next = max(from, start)
	var entry []byte
	first := int64(-1) // offset of the first chunk of entry
	for at := next; at < end; {
		got, after, err := j.brokers.fetch(ctx, j.at, at)
		if err != nil {
			return start, next, err
		}
		for _, r := range got.Records {
			if r.Attrs.IsControl() {
				continue
			}
			if len(r.Value) == 0 || r.Value[0] > chunkMore {
				return start, next, fmt.Errorf("%w: the record at offset %d of %v is not one of a sink", ErrCorrupt, r.Offset, j.at)
			}
			if first < 0 {
				first = r.Offset
			}
			entry = append(entry, r.Value[1:]...)
			if r.Value[0] == chunkMore {
				continue
			}
			if err := visit(first, entry); err != nil {
				return start, next, err
			}
			entry, first, next = nil, -1, r.Offset+1
		}
		at = after
		if first < 0 {
			next = max(next, at)
		}
	}
	return start, next, nil
}

// endPoll is the time between two looks at a partition of which a transaction is open.
const endPoll = 2 * time.Millisecond

// errOpen says that a transaction stays open.
var errOpen = errors.New("kafka: a transaction stays open")

// end gives where the committed part of the partition ends. A transaction may be visible in one partition before it is in another: so
// with all set, it waits up to Patience until the committed part reaches what is there now.
func (j *journal) end(ctx context.Context, all bool) (int64, error) {
	end, err := j.brokers.offset(ctx, j.at, atEnd, true)
	if err != nil || !all {
		return end, err
	}
	high, err := j.brokers.offset(ctx, j.at, atEnd, false)
	if err != nil {
		return end, err
	}
	patience := time.NewTimer(j.options.Patience)
	defer patience.Stop()
	tick := time.NewTicker(endPoll)
	defer tick.Stop()
	for end < high {
		select {
		case <-ctx.Done():
			return end, fmt.Errorf("kafka: %w", context.Cause(ctx))
		case <-patience.C:
			return end, errOpen
		case <-tick.C:
		}
		if end, err = j.brokers.offset(ctx, j.at, atEnd, true); err != nil {
			return end, err
		}
	}
	return end, nil
}

// chosenPartition sends a record where it says; one that says less than 0, where Kafka's own clients send its key.
type chosenPartition struct{}

// keyed is how Kafka's own clients spread keys.
var keyed = kgo.StickyKeyPartitioner(nil)

// ForTopic implements kgo.Partitioner.
func (chosenPartition) ForTopic(topic string) kgo.TopicPartitioner {
	return chosenInTopic{byKey: keyed.ForTopic(topic)}
}

type chosenInTopic struct{ byKey kgo.TopicPartitioner }

// RequiresConsistency says that a record waits for its partition, even if nobody leads that now.
func (chosenInTopic) RequiresConsistency(*kgo.Record) bool { return true }

// Partition gives the partition of n.
func (c chosenInTopic) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return c.byKey.Partition(r, n)
}
