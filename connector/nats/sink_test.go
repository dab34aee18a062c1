package nats

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

const epochRecords = 10 // an epoch of the tests' output

// cursorAt is the cursor of the tests' output before record n: epochs of ten records, no barriers counted.
func cursorAt(n int) determinant.Cursor {
	return determinant.Cursor{
		Next: determinant.Seq(n), Epoch: determinant.Epoch(1 + n/epochRecords), Bytes: uint64(n % epochRecords),
		CRC: uint32(n % epochRecords * 7),
	}
}

// output is what a generation makes: a rollback to record n changes what comes from n on.
type output []int

func (o output) record(n int) string {
	generation := 0
	for g, from := range o {
		if n >= from {
			generation = g + 1
		}
	}
	return fmt.Sprintf(`{"n":%d,"g":%d,"x":"%s"}`, n, generation, strings.Repeat("x", n%7))
}

func (o output) records(from, to int) []string {
	var all []string
	for n := from; n < to; n++ {
		all = append(all, o.record(n))
	}
	return all
}

// write is the write of records from..to, with a delta that says so.
func (o output) write(from, to int) operator.StoreWrite {
	w := operator.StoreWrite{Start: cursorAt(from), End: cursorAt(to), Delta: []byte(fmt.Sprintf("%d %d", from, to))}
	for _, r := range o.records(from, to) {
		w.Records = append(w.Records, []byte(r))
	}
	return w
}

// covers checks that the deltas tell of every record in from..to.
func covers(t require.TestingT, deltas [][]byte, from, to int) {
	told := make(map[int]bool)
	for _, d := range deltas {
		var a, b int
		_, err := fmt.Sscanf(string(d), "%d %d", &a, &b)
		require.NoError(t, err)
		for n := a; n < b; n++ {
			told[n] = true
		}
	}
	for n := from; n < to; n++ {
		require.True(t, told[n], "record %d is visible without determinants in %q", n, deltas)
	}
}

// bench is a stream and who looks at it.
type bench struct {
	t       testing.TB
	options SinkOptions
	js      jetstream.JetStream
}

func newBench(t testing.TB, address string) *bench {
	return &bench{t: t, js: plain(t, address), options: SinkOptions{
		Connection: Connection{Servers: []string{address}, Timeout: time.Second}, Stream: "OUT", Subject: "out.records", Identity: "job",
	}}
}

// open opens the sink as a process that was just started.
func (b *bench) open() operator.CausalStore {
	s, err := NewSink(b.options).Open(ctx, 0, 1)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { require.NoError(b.t, s.Close()) })
	return s
}

func (b *bench) fence(s operator.CausalStore, i determinant.Incarnation) operator.Stored {
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: i})
	require.NoError(b.t, err)
	return stored
}

func (b *bench) visible() []string { return bodies(readAll(b.t, b.js, "OUT", "out.records")) }

func (b *bench) hidden() []jetstream.Msg { return readAll(b.t, b.js, "OUT", "_understudy.OUT") }

func TestWriteAndReadBack(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	require.Equal(t, operator.Stored{}, b.fence(s, 1))
	var out output
	for n := 0; n < 30; n += 5 {
		require.NoError(t, s.Write(ctx, 1, out.write(n, n+5)))
		require.Equal(t, out.records(0, n+5), b.visible(), "visible at once")
	}
	stored := b.fence(s, 1)
	require.Equal(t, cursorAt(30), stored.Cursor)
	require.Len(t, stored.Deltas, 6)
	require.NoError(t, s.Write(ctx, 1, out.write(30, 31)), "a read beside the writer does not stop it")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Write(ctx, 1, out.write(31, 32)), os.ErrClosed)

	s = b.open()
	stored = b.fence(s, 2)
	require.Equal(t, cursorAt(31), stored.Cursor)
	covers(t, stored.Deltas, 0, 31)
	require.NoError(t, s.Write(ctx, 2, out.write(31, 40)))
	require.Equal(t, out.records(0, 40), b.visible())
}

func TestWhatAWriteRefuses(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	var out output
	require.ErrorIs(t, s.Write(ctx, 1, out.write(0, 1)), ErrUnfenced)
	b.fence(s, 2)
	require.ErrorIs(t, s.Write(ctx, 1, out.write(0, 1)), operator.ErrFenced)
	require.ErrorIs(t, s.Write(ctx, 3, out.write(0, 1)), ErrUnfenced)
	_, err := s.Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, operator.ErrFenced)
	require.NoError(t, s.Write(ctx, 2, out.write(0, 5)))
	require.ErrorIs(t, s.Write(ctx, 2, out.write(4, 6)), ErrGap)
	require.ErrorIs(t, s.Write(ctx, 2, out.write(6, 7)), ErrGap)
	w := out.write(5, 6)
	w.Start.CRC++
	require.ErrorIs(t, s.Write(ctx, 2, w), operator.ErrContradiction)
	w = out.write(5, 6)
	w.Records[0] = make([]byte, 2<<20)
	err = s.Write(ctx, 2, w)
	require.ErrorIs(t, err, ErrTooLarge)
	require.ErrorIs(t, err, operator.ErrPermanent)
	require.Equal(t, out.records(0, 5), b.visible())
	w = operator.StoreWrite{Start: cursorAt(5), End: cursorAt(5), Delta: []byte("5 5")}
	require.NoError(t, s.Write(ctx, 2, w), "determinants alone")
	require.NoError(t, s.Write(ctx, 2, out.write(5, 6)))
	require.Equal(t, out.records(0, 6), b.visible())
}

func TestDeltasLargerThanAMessage(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	var out output
	w := out.write(0, 5)
	w.Delta = []byte(strings.Repeat("0123456789", 150_000))
	require.NoError(t, s.Write(ctx, 1, w))
	require.NoError(t, s.Write(ctx, 1, out.write(5, 6)))
	stored := b.fence(b.open(), 2)
	require.Equal(t, cursorAt(6), stored.Cursor)
	require.Len(t, stored.Deltas, 2)
	require.True(t, string(w.Delta) == string(stored.Deltas[0]), "the delta came back otherwise")
	require.Equal(t, out.records(0, 6), b.visible())
}

// A pipelined write of a process that slept: its first message comes too late, and none behind it may be stored, although the
// sequences that they expect are reached meanwhile.
func TestAZombiesWriteShowsNothing(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	zombie := b.open()
	b.fence(zombie, 1)
	var out output
	require.NoError(t, zombie.Write(ctx, 1, out.write(0, 5)))
	s := b.open()
	b.fence(s, 2)
	require.ErrorIs(t, zombie.Write(ctx, 1, output{0}.write(5, 20)), operator.ErrFenced)
	require.NoError(t, s.Write(ctx, 2, out.write(5, 9)))
	require.ErrorIs(t, zombie.Write(ctx, 1, output{0}.write(5, 20)), operator.ErrFenced)
	require.Equal(t, out.records(0, 9), b.visible())
	require.NoError(t, zombie.Truncate(ctx, 1, nil))
	stored := b.fence(s, 2)
	covers(t, stored.Deltas, 0, 9)
}

func TestTruncateKeepsWhatIsNeeded(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	var out output
	for e := 1; e <= 5; e++ {
		for n := (e - 1) * epochRecords; n < e*epochRecords; n += 5 {
			require.NoError(t, s.Write(ctx, 1, out.write(n, n+5)))
		}
		require.NoError(t, s.Truncate(ctx, determinant.Epoch(e), nil))
		require.NoError(t, s.Truncate(ctx, determinant.Epoch(e), nil), "once more")
		stored := b.fence(b.open(), 1)
		require.Equal(t, cursorAt(e*epochRecords), stored.Cursor)
		covers(t, stored.Deltas, (e-1)*epochRecords, e*epochRecords)
	}
	require.LessOrEqual(t, len(b.hidden()), 7, "old determinants are gone")
	other := b.open()
	require.NoError(t, other.Truncate(ctx, 6, nil), "a process that does not write leaves them alone")
	require.Equal(t, out.records(0, 50), b.visible())

	s2 := b.open()
	stored, err := s2.Fence(ctx, operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{Cursor: cursorAt(40)}})
	require.NoError(t, err)
	require.Equal(t, operator.Stored{Cursor: cursorAt(40)}, stored)
	require.Equal(t, out.records(0, 40), b.visible())
	require.ErrorIs(t, s.Write(ctx, 1, out.write(50, 51)), operator.ErrFenced)
	again := output{40}
	require.NoError(t, s2.Write(ctx, 2, again.write(40, 55)))
	require.Equal(t, again.records(0, 55), b.visible())
	stored = b.fence2(b.open(), 2, 1)
	covers(t, stored.Deltas, 40, 55)
	require.Len(t, stored.Deltas, 1, "what was cut is gone")
}

// A reader beside a writer finds all that it needs, however often determinants that nobody needs are removed meanwhile.
func TestReadingBesideTruncations(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	const epochs = 150
	written := make(chan error, 1)
	go func() {
		var out output
		for e := 1; e <= epochs; e++ {
			for n := (e - 1) * epochRecords; n < e*epochRecords; n++ {
				if err := s.Write(ctx, 1, out.write(n, n+1)); err != nil {
					written <- err
					return
				}
			}
			if e%8 == 0 { // so that there is much to read, and much is removed at once
				if err := s.Truncate(ctx, determinant.Epoch(e), nil); err != nil {
					written <- err
					return
				}
			}
		}
		written <- nil
	}()
	reader, reads := b.open(), 0
	for over := false; !over; reads++ {
		select {
		case err := <-written:
			require.NoError(t, err)
			over = true
		default:
		}
		stored, err := reader.Fence(ctx, operator.Fence{Incarnation: 1})
		require.NoError(t, err, "after %d reads", reads)
		at := int(stored.Cursor.Next)
		covers(t, stored.Deltas, at-at%(8*epochRecords), at)
		if over {
			require.Equal(t, epochs*epochRecords, at)
		}
	}
	t.Logf("%d reads", reads)
}

func (b *bench) fence2(s operator.CausalStore, i determinant.Incarnation, g determinant.Generation) operator.Stored {
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: i, Generation: g})
	require.NoError(b.t, err)
	return stored
}

func TestCutToTheBeginning(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	var out output
	require.NoError(t, s.Write(ctx, 1, out.write(0, 7)))
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{}})
	require.NoError(t, err)
	require.Equal(t, operator.Stored{}, stored)
	require.Empty(t, b.visible())
	require.NoError(t, s.Write(ctx, 2, output{0}.write(0, 3)))
	require.Equal(t, output{0}.records(0, 3), b.visible())
	_, err = s.Fence(ctx, operator.Fence{Incarnation: 3, Generation: 2, Cut: &operator.Cut{Cursor: cursorAt(2)}})
	require.ErrorIs(t, err, ErrLost, "no write ended there")
}

func TestRestartShowsAgain(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	var out output
	require.NoError(t, s.Write(ctx, 1, out.write(0, 7)))
	at := cursorAt(3)
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: 2, Restart: &at})
	require.NoError(t, err)
	require.Equal(t, operator.Stored{Cursor: at}, stored)
	require.NoError(t, s.Write(ctx, 2, out.write(3, 9)))
	require.Equal(t, append(out.records(0, 7), out.records(3, 9)...), b.visible())
}

func TestWhoseStreamItIs(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	b.fence(b.open(), 1)
	b.options.Identity = "another"
	_, err := b.open().Fence(ctx, operator.Fence{Incarnation: 5})
	require.ErrorIs(t, err, ErrJob)
	require.ErrorIs(t, err, operator.ErrPermanent)
	require.Len(t, b.hidden(), 1, "nothing was written")

	b.options.Identity = ""
	sink := NewSink(b.options)
	_, err = sink.Open(ctx, 0, 1)
	require.ErrorIs(t, err, operator.ErrPermanent, "without an identity")
	require.NoError(t, sink.Identify("job"))
	s, err := sink.Open(ctx, 0, 1)
	require.NoError(t, err)
	b.fence(s, 2)
	require.ErrorIs(t, sink.Identify("another"), ErrJob, "while it is open")
	require.NoError(t, s.Close())
	_, err = NewSink(b.options).Open(ctx, 1, 1)
	require.Error(t, err)
}

func TestStreamsThatWillNotDo(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	subjects := []string{"out.>", "_understudy.OUT"}
	for name, c := range map[string]jetstream.StreamConfig{
		"work queue":       {Subjects: subjects, Retention: jetstream.WorkQueuePolicy},
		"interest":         {Subjects: subjects, Retention: jetstream.InterestPolicy},
		"last per subject": {Subjects: subjects, MaxMsgsPerSubject: 1},
		"no purge":         {Subjects: subjects, DenyPurge: true},
		"no delete":        {Subjects: subjects, DenyDelete: true},
		"no hidden":        {Subjects: []string{"out.>"}},
		"small messages":   {Subjects: subjects, MaxMsgSize: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			c.Name = "OUT"
			_, err := b.js.CreateStream(ctx, c)
			require.NoError(t, err)
			defer func() { require.NoError(t, b.js.DeleteStream(ctx, "OUT")) }()
			_, err = b.open().Fence(ctx, operator.Fence{Incarnation: 1})
			require.ErrorIs(t, err, ErrUnfit)
			require.ErrorIs(t, err, operator.ErrPermanent)
		})
	}
	b.options.NoCreate = true
	_, err := b.open().Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, ErrNoStream)

	_, err = b.js.CreateStream(ctx, jetstream.StreamConfig{Name: "OUT", Subjects: subjects})
	require.NoError(t, err)
	_, err = b.js.Publish(ctx, "out.records", []byte("mine"))
	require.NoError(t, err)
	_, err = b.open().Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, ErrForeign)
	require.Equal(t, []string{"mine"}, b.visible())
}

func TestSomeoneElseWrites(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	var out output
	require.NoError(t, s.Write(ctx, 1, out.write(0, 3)))
	_, err := b.js.Publish(ctx, "out.records", []byte("foreign"))
	require.NoError(t, err)
	require.ErrorIs(t, s.Write(ctx, 1, out.write(3, 6)), ErrForeign)
	_, err = b.open().Fence(ctx, operator.Fence{Incarnation: 2})
	require.ErrorIs(t, err, ErrForeign)
	require.Equal(t, append(out.records(0, 3), "foreign"), b.visible())
}

func TestDamageIsNoticed(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, b *bench, s jetstream.Stream){
		"a frame is gone": func(t *testing.T, b *bench, s jetstream.Stream) {
			require.NoError(t, s.DeleteMsg(ctx, 2))
		},
		"a later frame is gone": func(t *testing.T, b *bench, s jetstream.Stream) {
			m, err := s.GetLastMsgForSubject(ctx, "_understudy.OUT")
			require.NoError(t, err)
			require.NoError(t, s.DeleteMsg(ctx, m.Sequence))
		},
		"all was purged": func(t *testing.T, b *bench, s jetstream.Stream) { require.NoError(t, s.Purge(ctx)) },
		"a limit was set": func(t *testing.T, b *bench, s jetstream.Stream) {
			c := s.CachedInfo().Config
			c.MaxMsgs, c.Discard = 4, jetstream.DiscardOld
			_, err := b.js.UpdateStream(ctx, c)
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, embedded(t).ClientURL())
			s := b.open()
			b.fence(s, 1)
			var out output
			require.NoError(t, s.Write(ctx, 1, out.write(0, 3)))
			b.fence(s, 2)
			require.NoError(t, s.Write(ctx, 2, out.write(3, 6)))
			stream, err := b.js.Stream(ctx, "OUT")
			require.NoError(t, err)
			damage(t, b, stream)
			_, err = b.open().Fence(ctx, operator.Fence{Incarnation: 3})
			require.Error(t, err)
			require.ErrorIs(t, err, operator.ErrPermanent)
		})
	}
}

func TestEachTaskHasItsStream(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	sink := NewSink(b.options)
	for task := range 3 {
		s, err := sink.Open(ctx, task, 3)
		require.NoError(t, err)
		defer s.Close()
		b.fence(s, 1)
		require.NoError(t, s.Write(ctx, 1, output{}.write(0, task+1)))
	}
	for task := range 3 {
		all := readAll(t, b.js, fmt.Sprintf("OUT-%d", task), fmt.Sprintf("out.records.%d", task))
		require.Equal(t, output{}.records(0, task+1), bodies(all))
		require.Equal(t, fmt.Sprintf("%d.1.1.1", task), all[0].Headers().Get("Nats-Msg-Id"))
	}
}

func TestCloseEndsAWait(t *testing.T) {
	server := embedded(t)
	b := newBench(t, server.ClientURL())
	s := b.open()
	b.fence(s, 1)
	stopEmbedded(server)
	failed := make(chan error, 1)
	go func() { failed <- s.Write(ctx, 1, output{}.write(0, 5)) }()
	require.Eventually(t, func() bool { return s.(*store).Waiting() != "" }, 10*time.Second, time.Millisecond)
	require.Contains(t, s.(*store).Waiting(), "NATS at ")
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-failed, os.ErrClosed)

	s = b.open()
	brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err := s.Fence(brief, operator.Fence{Incarnation: 2})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
