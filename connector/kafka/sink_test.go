package kafka

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

func TestWriteAndReadBack(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	st := open(t, Sink(topic, s.sink()))
	require.Equal(t, operator.Stored{}, fence(t, st, 1))
	var str stream
	for n := 0; n < 30; n += 5 {
		require.NoError(t, st.Write(ctx, 1, str.write(n, n+5)))
		require.Equal(t, str.text(0, n+5), s.values(t, topic, 0), "visible at once")
	}
	stored := fence(t, st, 1)
	require.Equal(t, cursorAt(30), stored.Cursor)
	require.Len(t, stored.Deltas, 6)
	require.NoError(t, st.Write(ctx, 1, str.write(30, 31)), "a read beside the writer does not stop it")

	next := open(t, Sink(topic, s.sink()))
	stored = fence(t, next, 2)
	require.Equal(t, cursorAt(31), stored.Cursor)
	covers(t, stored.Deltas, 0, 31)
	require.ErrorIs(t, st.Write(ctx, 1, str.write(31, 33)), operator.ErrFenced)
	require.NoError(t, next.Write(ctx, 2, str.write(31, 40)))
	require.Equal(t, str.text(0, 40), s.values(t, topic, 0))
}

func TestTwoJobsCannotWriteToOnePlace(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	o := s.sink()
	o.Identity = ""
	mine, theirs, elsewhere := Sink(topic, o), Sink(topic, o), Sink(topic, o)
	require.NoError(t, mine.Identify("mine"))
	require.NoError(t, theirs.Identify("theirs"))
	elsewhere.options.Journal = topic + ".other"
	require.NoError(t, elsewhere.Identify("theirs"))
	st := open(t, mine)
	fence(t, st, 1)
	require.NoError(t, st.Write(ctx, 1, stream{}.write(0, 2)))
	_, err := open(t, theirs).Fence(ctx, operator.Fence{Incarnation: 9})
	require.ErrorIs(t, err, ErrJob)
	require.ErrorIs(t, err, operator.ErrPermanent)
	_, err = transactional(t, topic, s.sink()).Fence(ctx, 9)
	require.ErrorIs(t, err, ErrJob)
	require.NotNil(t, st.(*store).part.journal.producer)
	require.NoError(t, st.Write(ctx, 1, stream{}.write(2, 4)), "whose it is was not disturbed")
	require.ErrorIs(t, mine.Identify("theirs"), ErrJob)
	fence(t, open(t, elsewhere), 1) // one topic, two journals
}

func TestMessages(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 5, nil)
	o := s.sink()
	o.Message = DecodeMessage
	st := open(t, Sink(topic, o))
	fence(t, st, 1)
	at := time.UnixMilli(1700000000123).UTC()
	messages := []Message{
		{Key: []byte("k"), Value: []byte("v"), Headers: []Header{{"h", []byte("1")}, {"h", nil}}, Time: at},
		{Key: []byte("gone")}, {Value: []byte("no key")}, {Key: []byte{}, Value: []byte{}, Partition: 5},
	}
	w := operator.StoreWrite{Start: cursorAt(0), End: cursorAt(4)}
	require.NoError(t, operator.CheckDeterministic[Message](MessageCodec{}, messages...))
	for _, m := range messages {
		encoded, err := MessageCodec{}.Append(nil, m)
		require.NoError(t, err)
		back, err := MessageCodec{}.Decode(encoded)
		require.NoError(t, err)
		require.Equal(t, m, back)
		w.Records = append(w.Records, encoded)
	}
	require.NoError(t, st.Write(ctx, 1, w))
	byValue := make(map[string]*kgo.Record)
	for _, records := range s.consume(t, topic) {
		for _, r := range records {
			byValue[fmt.Sprintf("%s=%s", r.Key, r.Value)] = r
		}
	}
	require.Len(t, byValue, 4)
	for _, key := range []string{"k", "gone"} { // where a client of Kafka's own would write it
		want := kgo.StickyKeyPartitioner(nil).ForTopic(topic).Partition(&kgo.Record{Key: []byte(key)}, 5)
		for _, r := range byValue {
			if string(r.Key) == key {
				require.EqualValues(t, want, r.Partition)
			}
		}
	}
	require.Equal(t, []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h"}}, byValue["k=v"].Headers)
	require.True(t, at.Equal(byValue["k=v"].Timestamp))
	require.Nil(t, byValue["gone="].Value)
	require.EqualValues(t, 0, byValue["=no key"].Partition, "that of the task")
	require.EqualValues(t, 4, byValue["="].Partition)

	for _, bad := range [][]byte{{}, {1}, []byte("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")} {
		w := operator.StoreWrite{Start: cursorAt(4), End: cursorAt(5), Records: [][]byte{bad}}
		require.ErrorIs(t, st.Write(ctx, 1, w), operator.ErrPermanent)
	}
	for record, key := range map[string]string{`{"k":"x"}`: "x", `{"k":12}`: "12", `{"k":{"a":1}}`: `{"a":1}`, `{}`: "", `x`: ""} {
		m, err := JSONKey("k")([]byte(record))
		require.Equal(t, key == "", err != nil)
		require.Equal(t, key, string(m.Key))
	}
}

// TestWhatIsRefused fails for good, at once, and shows nothing.
func TestWhatIsRefused(t *testing.T) {
	s := serve(t)
	o := s.sink()
	_, err := open(t, Sink("test-none", o)).Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, ErrNoTopic)
	topic := s.topic(t, 1, nil)
	o.Journal = s.topic(t, 1, nil)
	two, err := Sink(topic, o).Open(ctx, 1, 2)
	require.NoError(t, err)
	_, err = two.Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, ErrNoTopic, "a journal of one partition, for two tasks")
	require.NoError(t, two.Close())

	o.Journal, o.MaxMessageBytes, o.Compression = "", 2000, "none"
	st := open(t, Sink(topic, o))
	fence(t, st, 1)
	huge := operator.StoreWrite{Start: cursorAt(0), End: cursorAt(1), Records: [][]byte{bytes.Repeat([]byte("x"), 3000)}}
	err = st.Write(ctx, 1, huge)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "MESSAGE_TOO_LARGE")
	delta := make([]byte, 50_000) // determinants have no bound: they are cut
	_, err = rand.Read(delta)
	require.NoError(t, err)
	require.NoError(t, st.Write(ctx, 1, operator.StoreWrite{Start: cursorAt(0), End: cursorAt(1), Records: [][]byte{[]byte("x")}, Delta: delta}))
	require.Equal(t, [][]byte{delta}, fence(t, open(t, Sink(topic, o)), 2).Deltas)
	require.Equal(t, []string{"x"}, s.values(t, topic, 0))
	for _, bad := range []SinkOptions{{}, {Client: s.client(), Interval: -1}, {Client: s.client(), Compression: "rar"},
		{Client: s.client(), JournalTimeout: time.Millisecond}, {Client: s.client(), MaxMessageBytes: 5}} {
		_, err := Sink(topic, bad).Open(ctx, 0, 1)
		require.ErrorIs(t, err, operator.ErrPermanent)
	}
}

// TestAJournalThatLostEntries has somebody else remove what is needed.
func TestAJournalThatLostEntries(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	b, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer b.close()
	journal := place{topic + ".understudy", 0}
	st := open(t, Sink(topic, s.sink()))
	fence(t, st, 1)
	for e := range 6 { // of checkpoints, of which each lets go of what the one before the last does not need
		require.NoError(t, st.Write(ctx, 1, stream{}.write(e*10, e*10+10)))
		require.NoError(t, st.Truncate(ctx, determinant.Epoch(e+1), nil))
	}
	start, err := b.offset(ctx, journal, atStart, false)
	require.NoError(t, err)
	require.Positive(t, start)
	covers(t, fence(t, open(t, Sink(topic, s.sink())), 2).Deltas, 40, 60)
	keep := int64(st.(*store).part.known.last.Keep)
	require.NoError(t, b.remove(ctx, journal, keep))
	fence(t, open(t, Sink(topic, s.sink())), 3)
	require.NoError(t, b.remove(ctx, journal, keep+3))
	_, err = open(t, Sink(topic, s.sink())).Fence(ctx, operator.Fence{Incarnation: 4})
	require.ErrorIs(t, err, ErrCorrupt)
	require.NoError(t, b.remove(ctx, journal, -1))
	_, err = open(t, Sink(topic, s.sink())).Fence(ctx, operator.Fence{Incarnation: 4})
	require.ErrorIs(t, err, ErrCorrupt)
}

// TestAWriterThatSleptThroughCheckpoints wakes up when what it would have to read first is no longer there.
func TestAWriterThatSleptThroughCheckpoints(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	zombie, next := open(t, Sink(topic, s.sink())), open(t, Sink(topic, s.sink()))
	fence(t, zombie, 1)
	require.NoError(t, zombie.Write(ctx, 1, stream{}.write(0, 10)))
	fence(t, next, 2)
	for e := 1; e < 7; e++ {
		require.NoError(t, next.Write(ctx, 2, stream{}.write(e*10, e*10+10)))
		require.NoError(t, next.Truncate(ctx, determinant.Epoch(e), nil))
	}
	require.Greater(t, next.(*store).part.known.last.Keep, uint64(zombie.(*store).part.known.next))
	require.ErrorIs(t, zombie.Write(ctx, 1, stream{}.write(10, 20)), operator.ErrFenced)
	require.NoError(t, zombie.Truncate(ctx, 1, nil))
	require.Equal(t, cursorAt(70), fence(t, zombie, 3).Cursor)
	require.NoError(t, zombie.Write(ctx, 3, stream{}.write(70, 80)))
	require.Equal(t, stream{}.text(0, 80), s.values(t, topic, 0))

	held, other := transactional(t, s.topic(t, 1, nil), s.sink()), operator.TransactionalStore(nil)
	mustFence(t, held, 1)
	other = transactional(t, held.(*transactions).desk.topic, s.sink())
	mustFence(t, other, 2)
	for e := range determinant.Epoch(tidyEvery) {
		require.NoError(t, other.Commit(ctx, 2, mustPrepare(t, other, 2, e+1, "x")))
	}
	require.ErrorIs(t, held.Write(ctx, 1, [][]byte{[]byte("y")}), operator.ErrFenced)
	mustFence(t, held, 3)
}

// TestReadingIsTakenUpAgain has a Fetch fail in the middle of the journal: what was read before is not taken in twice.
func TestReadingIsTakenUpAgain(t *testing.T) {
	s := fake(t)
	topic := s.topic(t, 1, nil)
	late, writer := open(t, Sink(topic, s.sink())), open(t, Sink(topic, s.sink()))
	fence(t, writer, 1)
	fence(t, late, 1) // beside it: what comes then, late reads when it writes
	large := make([]byte, 3<<20)
	_, err := rand.Read(large)
	require.NoError(t, err)
	for n := range 4 { // each more than a Fetch brings
		w := stream{}.write(n, n+1)
		w.Delta = large
		require.NoError(t, writer.Write(ctx, 1, w))
	}
	fetches := 0
	s.fake.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		if fetches++; fetches%3 == 0 {
			return nil, errors.New("hang up"), true
		}
		return nil, nil, false
	})
	require.NoError(t, late.Write(ctx, 1, stream{}.write(4, 5)))
	require.Greater(t, fetches, 3)
	s.fake.DropControl()
}

// TestOutage cuts the network at every request of a write, for longer than a transaction may last, and mends it.
func TestOutage(t *testing.T) {
	t.Parallel()
	s := serve(t)
	topic := s.topic(t, 1, nil)
	n := newNetwork(t)
	o := s.sink()
	o.Client.dial, o.JournalTimeout = n.dial, time.Second
	told := make(chan struct{}, 1)
	o.Waiting = func(string, error) {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	st := open(t, Sink(topic, o))
	waits := func() {
		t.Helper()
		require.Eventually(t, func() bool { return st.(operator.Waiter).Waiting() != "" }, 20*time.Second, time.Millisecond)
	}
	fence(t, st, 1)
	var str stream
	for i := range 3 {
		n.down()
		result := make(chan error, 1)
		go func() { result <- st.Write(ctx, 1, str.write(i*5, i*5+5)) }()
		<-told
		waits()
		if i == 1 {
			over := time.NewTimer(1200 * time.Millisecond) // the brokers' patience
			<-over.C
		}
		select {
		case err := <-result:
			require.FailNow(t, "it did not wait", "%v", err)
		default:
		}
		n.up()
		require.NoError(t, <-result)
		require.Empty(t, st.(operator.Waiter).Waiting())
		require.Equal(t, str.text(0, i*5+5), s.values(t, topic, 0))
	}

	// Whoever waits gives up when the writer is replaced in the same process, when its caller does, and when the store is closed.
	n.down()
	result := make(chan error, 3)
	go func() { result <- st.Write(ctx, 1, str.write(15, 20)) }()
	waits()
	fenced := make(chan operator.Stored, 1)
	go func() { stored, _ := st.Fence(ctx, operator.Fence{Incarnation: 2}); fenced <- stored }()
	require.ErrorIs(t, <-result, operator.ErrFenced)
	n.up()
	require.Equal(t, cursorAt(15), (<-fenced).Cursor)
	n.down()
	short, cancel := context.WithCancelCause(ctx)
	go func() { result <- st.Write(short, 2, str.write(15, 20)) }()
	waits()
	enough := errors.New("enough")
	cancel(enough)
	require.ErrorIs(t, <-result, enough)
	go func() { result <- st.Write(ctx, 2, str.write(15, 20)) }()
	waits()
	require.NoError(t, st.Close())
	require.ErrorIs(t, <-result, ErrClosed)
	n.up()
	st = open(t, Sink(topic, o))
	require.Equal(t, cursorAt(15), fence(t, st, 3).Cursor)
}

func TestEntriesRoundTrip(t *testing.T) {
	e := entry{Identity: "job", Task: 1, Serial: 2, Incarnation: 3, Generation: 4, Committed: 5, Keep: 6, Count: 7, Shown: 8, Begins: true,
		Start: cursorAt(9), End: cursorAt(22), Delta: []byte("delta")}
	back, err := decodeEntry(appendEntry(nil, &e))
	require.NoError(t, err)
	require.Equal(t, e, back)
	r := register{Identity: "job", Task: 1, Serial: 2, Incarnation: 3, Next: 4, Slots: 5, Former: []slot{{1, 2}},
		Prepared: []prepared{{Epoch: 1, Number: 2, Slot: slot{3, 4}, Producer: 1 << 62, Fencing: 6}}, Aborted: []uint64{1, 3}}
	again, err := decodeRegister(appendRegister(nil, &r))
	require.NoError(t, err)
	require.Equal(t, r, again)
	_, err = decodeEntry(appendRegister(nil, &r))
	require.ErrorIs(t, err, ErrJob)
	for i := range appendRegister(nil, &r) {
		_, err := decodeRegister(appendRegister(nil, &r)[:i])
		require.ErrorIs(t, err, ErrCorrupt)
	}
}

func FuzzEntry(f *testing.F) {
	f.Add(appendEntry(nil, &entry{Identity: "job", Delta: []byte("x")}))
	f.Add(appendRegister(nil, &register{Prepared: []prepared{{}}, Former: []slot{{}}, Aborted: []uint64{1}}))
	message, _ := MessageCodec{}.Append(nil, Message{Key: []byte("k"), Headers: []Header{{"h", nil}}})
	f.Add(message)
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := decodeEntry(data); err == nil {
			again, err := decodeEntry(appendEntry(nil, &e))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(e), fmt.Sprint(again))
		}
		if r, err := decodeRegister(data); err == nil {
			again, err := decodeRegister(appendRegister(nil, &r))
			require.NoError(t, err)
			require.Equal(t, r, again)
		}
		if m, err := DecodeMessage(data); err == nil {
			encoded, err := MessageCodec{}.Append(nil, m)
			require.NoError(t, err)
			again, err := DecodeMessage(encoded)
			require.NoError(t, err)
			require.Equal(t, m, again)
		}
	})
}

func BenchmarkSink(b *testing.B) {
	const records, size = 1000, 100
	s := serve(b)
	st := open(b, Sink(s.topic(b, 1, nil), s.sink()))
	fence(b, st, 1)
	w := operator.StoreWrite{Delta: make([]byte, 200)}
	for range records {
		w.Records = append(w.Records, bytes.Repeat([]byte("x"), size))
	}
	b.SetBytes(records * size)
	for b.Loop() {
		w.End.Next += records
		w.End.Epoch = 1
		if err := st.Write(ctx, 1, w); err != nil {
			b.Fatal(err)
		}
		w.Start = w.End
	}
	b.ReportMetric(float64(records*b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkTransactionalSink(b *testing.B) {
	const records, size = 1000, 100
	s := serve(b)
	st := transactional(b, s.topic(b, 1, nil), s.sink())
	mustFence(b, st, 1)
	var batch [][]byte
	for range records {
		batch = append(batch, bytes.Repeat([]byte("x"), size))
	}
	b.SetBytes(records * size)
	for b.Loop() {
		if err := st.Write(ctx, 1, batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(records*b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkSource(b *testing.B) {
	const records, size = 200_000, 100
	s := serve(b)
	topic := s.topic(b, 1, nil)
	c, err := kgo.NewClient(kgo.SeedBrokers(s.addrs...), kgo.DisableClientMetrics())
	require.NoError(b, err)
	defer c.Close()
	value := bytes.Repeat([]byte("x"), size)
	for range records / 10_000 {
		var batch []*kgo.Record
		for range 10_000 {
			batch = append(batch, &kgo.Record{Topic: topic, Value: value})
		}
		require.NoError(b, c.ProduceSync(ctx, batch...).FirstErr())
	}
	src := Records(SourceOptions{Client: s.client(), Bounded: true}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(b, err)
	b.SetBytes(records * size)
	for b.Loop() {
		r, err := src.Open(ctx, splits[0], 0)
		require.NoError(b, err)
		n := 0
		for {
			if _, _, err = r.Next(); err == nil {
				n++
			} else if errors.Is(err, operator.ErrNotReady) {
				<-r.Ready()
			} else {
				break
			}
		}
		require.Equal(b, records, n)
		require.NoError(b, r.Close())
	}
	b.ReportMetric(float64(records*b.N)/b.Elapsed().Seconds(), "records/s")
}
