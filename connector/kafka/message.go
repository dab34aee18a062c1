package kafka

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/understudy-stream/understudy/operator"
)

// Header is a header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Message is a record to be written.
type Message struct {
	// Key decides the partition, by the hash that Kafka's own clients use, unless Partition does. Nil is no key: then task i of the
	// sink writes to partition i modulo their number, so that its output stays in order.
	Key []byte
	// Value nil is a tombstone: it removes the key from a compacted topic.
	Value   []byte
	Headers []Header
	// Time is the record's timestamp, kept to the millisecond. Zero is the time of writing.
	Time time.Time
	// Partition is one more than the partition to write to, so that zero leaves the choice to the key.
	Partition int32
}

// MessageCodec encodes Messages, for a stream of them that ends in a sink whose options have DecodeMessage:
//
//	operator.To(messages, "out", kafka.Sink("orders", kafka.SinkOptions{Message: kafka.DecodeMessage, …}),
//		operator.WithCodec[kafka.Message](kafka.MessageCodec{}))
type MessageCodec struct{}

var _ operator.Codec[Message] = MessageCodec{}

// Append implements operator.Codec.
func (MessageCodec) Append(dst []byte, m Message) ([]byte, error) {
	if m.Partition < 0 {
		return dst, fmt.Errorf("kafka: a message for partition %d, where 1 is the first", m.Partition)
	}
	dst = binary.AppendUvarint(dst, uint64(m.Partition))
	at := int64(0)
	if !m.Time.IsZero() {
		at = m.Time.UnixMilli() + 1
	}
	dst = binary.AppendVarint(dst, at)
	dst = appendBytes(appendBytes(dst, m.Key), m.Value)
	dst = binary.AppendUvarint(dst, uint64(len(m.Headers)))
	for _, h := range m.Headers {
		dst = appendBytes(appendBytes(dst, []byte(h.Key)), h.Value)
	}
	return dst, nil
}

// Decode implements operator.Codec. What the message holds is its own.
func (MessageCodec) Decode(src []byte) (Message, error) { return DecodeMessage(bytes.Clone(src)) }

// appendBytes keeps nil and empty apart.
func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendUvarint(dst, 0)
	}
	return append(binary.AppendUvarint(dst, uint64(len(b))+1), b...)
}

func (b *body) bytes() []byte {
	n := b.uvarint()
	if b.bad || n == 0 {
		return nil
	}
	if n-1 > uint64(len(b.rest)) {
		b.bad = true
		return nil
	}
	out := b.rest[: n-1 : n-1]
	b.rest = b.rest[n-1:]
	return out
}

// DecodeMessage is the inverse of MessageCodec, for SinkOptions.Message. The message aliases encoded.
func DecodeMessage(encoded []byte) (Message, error) {
	b := body{rest: encoded}
	m := Message{Partition: int32(b.below(1 << 31))}
	at, n := binary.Varint(b.rest)
	if n <= 0 || b.bad {
		return Message{}, errors.New("kafka: not a message of MessageCodec")
	}
	b.rest = b.rest[n:]
	if at != 0 {
		m.Time = time.UnixMilli(at - 1).UTC()
	}
	m.Key, m.Value = b.bytes(), b.bytes()
	for n := b.below(maxListed); n > 0 && !b.bad; n-- {
		m.Headers = append(m.Headers, Header{Key: string(b.bytes()), Value: b.bytes()})
	}
	if b.bad || len(b.rest) > 0 {
		return Message{}, errors.New("kafka: not a message of MessageCodec")
	}
	return m, nil
}

// Value is the default of SinkOptions.Message: the encoded record is the value, and there is no key.
func Value(encoded []byte) (Message, error) { return Message{Value: encoded}, nil }

// JSONKey is for SinkOptions.Message: the encoded record is a JSON object and the value, and its field of that name is the key. A
// string is taken without quotes, anything else as it stands there.
func JSONKey(field string) func(encoded []byte) (Message, error) {
	return func(encoded []byte) (Message, error) {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(encoded, &object); err != nil {
			return Message{}, fmt.Errorf("kafka: looking for the key %q: %w", field, err)
		}
		raw, ok := object[field]
		if !ok {
			return Message{}, fmt.Errorf("kafka: the record has no field %q for its key", field)
		}
		var text string
		if json.Unmarshal(raw, &text) == nil && len(raw) > 0 && raw[0] == '"' {
			return Message{Key: []byte(text), Value: encoded}, nil
		}
		return Message{Key: raw, Value: encoded}, nil
	}
}

// records makes what is produced of encoded records.
func (o *SinkOptions) records(topic string, task, partitions int, encoded [][]byte) ([]*kgo.Record, error) {
	out := make([]*kgo.Record, 0, len(encoded))
	for i, e := range encoded {
		m, err := o.Message(e)
		if err != nil {
			return nil, fmt.Errorf("%w: record %d of %d: %w", operator.ErrPermanent, i, len(encoded), err)
		}
		r := &kgo.Record{Topic: topic, Key: m.Key, Value: m.Value, Timestamp: m.Time, Partition: m.Partition - 1}
		switch {
		case int(r.Partition) >= partitions:
			return nil, fmt.Errorf("%w: a message for partition %d, and %s has %d", ErrNoTopic, r.Partition, topic, partitions)
		case r.Partition < 0 && m.Key == nil:
			r.Partition = int32(task % partitions)
		}
		for _, h := range m.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		out = append(out, r)
	}
	return out, nil
}
