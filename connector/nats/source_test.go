package nats

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// input makes a stream of n messages on in.0 and in.1 in turn, each a JSON number.
func input(t testing.TB, js jetstream.JetStream, name string, n int) jetstream.Stream {
	s := makeStream(t, js, jetstream.StreamConfig{Name: name, Subjects: []string{name + ".*"}})
	publish(t, js, name, 0, n)
	return s
}

// makeStream makes a stream. A server that has much to do may say no at first.
func makeStream(t testing.TB, js jetstream.JetStream, c jetstream.StreamConfig) (s jetstream.Stream) {
	require.Eventually(t, func() (ok bool) {
		var err error
		s, err = js.CreateOrUpdateStream(ctx, c)
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	return s
}

func publish(t testing.TB, js jetstream.JetStream, name string, from, to int) {
	for i := from; i < to; i++ {
		_, err := js.Publish(ctx, fmt.Sprintf("%s.%d", name, i%2), fmt.Appendf(nil, "%d", i))
		require.NoError(t, err)
	}
}

func sourceOptions(address string, streams ...string) SourceOptions {
	return SourceOptions{Connection: Connection{Servers: []string{address}, Timeout: time.Second}, Streams: streams}
}

// take reads n records, or up to the end if n is negative.
func take[T any](t testing.TB, r operator.Reader[T], n int) (all []T, offsets []uint64, err error) {
	deadline := time.After(30 * time.Second)
	for len(all) != n {
		v, next, err := r.Next()
		switch {
		case err == nil:
			all, offsets = append(all, v), append(offsets, next)
		case errors.Is(err, operator.ErrNotReady):
			select {
			case <-r.Ready():
			case <-deadline:
				require.FailNow(t, "nothing comes", "%d of %d", len(all), n)
			}
		default:
			return all, offsets, err
		}
	}
	return all, offsets, nil
}

func openSplit(t testing.TB, s *Source, split string, offset uint64) operator.Reader[Message] {
	r, err := s.Open(ctx, split, offset)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func splitsOf(t testing.TB, s *Source) []string {
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	return splits
}

func TestASourceThatEnds(t *testing.T) {
	address := embedded(t).ClientURL()
	js := plain(t, address)
	input(t, js, "in", 100)
	for _, ranges := range []int{1, 3, 7, 200} {
		o := sourceOptions(address, "in")
		o.Bounded, o.Ranges = true, ranges
		s := Messages(o)
		splits := splitsOf(t, s)
		require.Len(t, splits, min(ranges, 100))
		n := 0
		for _, split := range splits {
			all, offsets, err := take(t, openSplit(t, s, split, 0), -1)
			require.Equal(t, io.EOF, err)
			for i, m := range all {
				require.Equal(t, fmt.Sprint(n), string(m.Data))
				require.Equal(t, fmt.Sprintf("in.%d", n%2), m.Subject)
				require.Equal(t, "in", m.Stream)
				require.InDelta(t, time.Now().UnixMilli(), m.Millis, 1e6)
				require.Equal(t, offsets[i], m.Sequence)
				n++
			}
			at := offsets[len(offsets)/2]
			rest, _, err := take(t, openSplit(t, s, split, at), -1)
			require.Equal(t, io.EOF, err)
			require.Equal(t, all[len(offsets)/2+1:], append([]Message{}, rest...))
		}
		require.Equal(t, 100, n)
	}
	publish(t, js, "in", 100, 110)
	o := sourceOptions(address, "in")
	o.Bounded, o.Subjects = true, []string{"in.0", "in.1", "in.none"}
	s := Messages(o)
	splits := splitsOf(t, s)
	require.Len(t, splits, 2, "a subject without messages has no splits")
	publish(t, js, "in", 110, 120)
	for i, split := range splits {
		all, _, err := take(t, openSplit(t, s, split, 0), -1)
		require.Equal(t, io.EOF, err)
		require.Len(t, all, 55, "what came later is not read")
		for k, m := range all {
			require.Equal(t, fmt.Sprint(2*k+i), string(m.Data))
		}
	}
}

func TestASourceThatFollows(t *testing.T) {
	p := newProcess(t)
	js := plain(t, p.address())
	input(t, js, "in", 10)
	o := sourceOptions(p.address(), "in")
	o.Ahead = 4
	s := Messages(o)
	splits := splitsOf(t, s)
	require.Equal(t, []string{"in?first=1"}, splits)
	r := openSplit(t, s, splits[0], 0)
	all, _, err := take(t, r, 10)
	require.NoError(t, err)
	publish(t, js, "in", 10, 20)
	more, _, err := take(t, r, 5)
	require.NoError(t, err)
	all = append(all, more...)

	p.kill() // with messages fetched and not asked for
	require.Eventually(t, func() bool { return r.(*reader).Waiting() != "" }, 20*time.Second, time.Millisecond)
	p.start()
	publish(t, js, "in", 20, 30)
	more, _, err = take(t, r, 15)
	require.NoError(t, err)
	for i, m := range append(all, more...) {
		require.Equal(t, fmt.Sprint(i), string(m.Data))
		require.Equal(t, uint64(i+1), m.Sequence)
	}
	require.Eventually(t, func() bool { return r.(*reader).Waiting() == "" }, 20*time.Second, time.Millisecond)
	_, _, err = r.Next()
	require.Equal(t, operator.ErrNotReady, err)
}

func TestWhatWasRemovedIsMissed(t *testing.T) {
	address := embedded(t).ClientURL()
	js := plain(t, address)
	stream := input(t, js, "in", 20)
	o := sourceOptions(address, "in")
	s := Messages(o)
	split := splitsOf(t, s)[0]
	r := openSplit(t, s, split, 0)
	_, _, err := take(t, r, 20)
	require.NoError(t, err)

	require.NoError(t, stream.DeleteMsg(ctx, 12))
	_, offsets, err := take(t, openSplit(t, s, split, 10), 9)
	require.NoError(t, err, "a hole in the middle is none of the stream's limits")
	require.Equal(t, []uint64{11, 13, 14, 15, 16, 17, 18, 19, 20}, offsets)

	require.NoError(t, stream.Purge(ctx, jetstream.WithPurgeSequence(6)))
	_, _, err = take(t, openSplit(t, s, split, 5), 5)
	require.NoError(t, err)
	for _, offset := range []uint64{0, 4} {
		_, _, err = take(t, openSplit(t, s, split, offset), 1)
		require.ErrorIs(t, err, ErrRemoved)
		require.ErrorIs(t, err, operator.ErrPermanent)
	}
	o.AllowRemoved = true
	all, _, err := take(t, openSplit(t, Messages(o), split, 0), 1)
	require.NoError(t, err)
	require.Equal(t, "5", string(all[0].Data))

	_, _, err = take(t, openSplit(t, s, split, 21), 1)
	require.ErrorIs(t, err, ErrOffset, "the stream is shorter than it was")
}

// A reader that is slower than the stream's limits must say so while it reads, and not only when it begins.
func TestAReaderThatIsOvertaken(t *testing.T) {
	address := embedded(t).ClientURL()
	js := plain(t, address)
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "in", Subjects: []string{"in.*"}, MaxMsgs: 50, Discard: jetstream.DiscardOld})
	require.NoError(t, err)
	publish(t, js, "in", 0, 20)
	o := sourceOptions(address, "in")
	o.Ahead = 1
	s := Messages(o)
	r := openSplit(t, s, splitsOf(t, s)[0], 0)
	_, _, err = take(t, r, 5)
	require.NoError(t, err)
	publish(t, js, "in", 20, 200)
	all, _, err := take(t, r, -1)
	require.ErrorIs(t, err, ErrRemoved)
	for i, m := range all {
		require.Equal(t, uint64(i+6), m.Sequence, "up to there nothing is missing")
	}
}

func TestASinksStreamIsASource(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	sink := b.open()
	b.fence(sink, 1)
	var out output
	for e := range 5 {
		require.NoError(t, sink.Write(ctx, 1, out.write(10*e, 10*e+10)))
	}
	for _, subject := range []string{"", "out.records"} {
		o := sourceOptions(b.options.Connection.Servers[0], "OUT")
		o.Bounded = true
		if subject != "" {
			o.Subjects = []string{subject}
		}
		s := Messages(o)
		split := splitsOf(t, s)[0]
		for e := range 5 {
			require.NoError(t, sink.Truncate(ctx, determinant.Epoch(e+1), nil))
		}
		all, _, err := take(t, openSplit(t, s, split, 0), -1)
		require.Equal(t, io.EOF, err)
		require.Len(t, all, 50)
		for i, m := range all {
			require.Equal(t, out.record(i), string(m.Data))
		}
	}
}

func TestDecoding(t *testing.T) {
	address := embedded(t).ClientURL()
	js := plain(t, address)
	input(t, js, "in", 3)
	_, err := js.Publish(ctx, "in.0", []byte("no number"))
	require.NoError(t, err)
	publish(t, js, "in", 4, 5)
	s := Messages(sourceOptions(address, "in"))
	r, err := JSON[int](s).Open(ctx, splitsOf(t, s)[0], 0)
	require.NoError(t, err)
	defer r.Close()
	all, _, err := take(t, r, -1)
	require.Equal(t, []int{0, 1, 2}, all)
	var bad *DecodeError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, uint64(4), bad.Sequence)
	require.Contains(t, err.Error(), "no number")
	all, offsets, err := take(t, r, 1)
	require.NoError(t, err)
	require.Equal(t, []int{4}, all)
	require.Equal(t, []uint64{5}, offsets)

	d, err := Decoded(s, func(m Message) (string, error) { return m.Subject, nil }).Open(ctx, splitsOf(t, s)[0], 4)
	require.NoError(t, err)
	defer d.Close()
	subjects, _, err := take(t, d, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"in.0"}, subjects)
}

func TestSplitsThatAreNone(t *testing.T) {
	address := embedded(t).ClientURL()
	js := plain(t, address)
	input(t, js, "in", 3)
	o := sourceOptions(address, "in")
	o.Bounded = true
	s := Messages(o)
	for _, split := range []string{"", "in", "other?first=1", "in?first=0", "in?first=x", "in?first=1&subject=other", "in?first=01", "in?%zz"} {
		_, err := s.Open(ctx, split, 0)
		require.ErrorIs(t, err, ErrSplit, split)
	}
	_, err := s.Open(ctx, "in?first=1&last=3", 4)
	require.ErrorIs(t, err, ErrOffset)
	_, err = s.Open(ctx, "in?first=2&last=3", 1)
	require.ErrorIs(t, err, ErrOffset)
	require.Equal(t, "stream in", s.InputOf("in?first=1&last=3"))

	_, err = Messages(sourceOptions(address, "absent")).Splits(ctx)
	require.ErrorIs(t, err, ErrNoStream)
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "queue", Retention: jetstream.WorkQueuePolicy})
	require.NoError(t, err)
	_, err = Messages(sourceOptions(address, "queue")).Splits(ctx)
	require.ErrorIs(t, err, ErrUnfit)
}
