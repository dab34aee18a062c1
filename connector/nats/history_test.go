package nats

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// writeEach makes n writes of a record each.
func (b *bench) writeEach(s operator.CausalStore, n int) {
	for i := range n {
		require.NoError(b.t, s.Write(ctx, 1, output{}.write(i, i+1)))
	}
}

// requestsOf counts what a store sends to the server in a call.
func requestsOf(t *testing.T, s operator.CausalStore, call func()) int {
	conn, _, err := s.(*store).part.link.get()
	require.NoError(t, err)
	before := conn.Stats().OutMsgs
	call()
	return int(conn.Stats().OutMsgs - before)
}

// allowDirect lets the servers of stream OUT give messages in batches, or not.
func allowDirect(t testing.TB, js jetstream.JetStream, allow bool) {
	stream, err := js.Stream(ctx, "OUT")
	require.NoError(t, err)
	c := stream.CachedInfo().Config
	c.AllowDirect = allow
	_, err = js.UpdateStream(ctx, c)
	require.NoError(t, err)
}

// A fence sends some requests for each batch, and not one for each message. Where the stream does not allow batches it reads the same.
func TestAFenceReadsInBatches(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	const n = 2*batchMessages + 100
	b.writeEach(s, n)
	for _, direct := range []bool{true, false} {
		allowDirect(t, b.js, direct)
		reader := b.open()
		b.fence(reader, 1) // is connected now
		sent := requestsOf(t, reader, func() {
			stored := b.fence(reader, 1)
			require.Equal(t, cursorAt(n), stored.Cursor)
			require.Len(t, stored.Deltas, n)
			covers(t, stored.Deltas, 0, n)
		})
		if direct {
			require.LessOrEqual(t, sent, n/batchMessages+1+6, "requests for %d messages", n)
		} else {
			require.Greater(t, sent, n, "one by one")
		}
	}
}

// No answer is much longer than a megabyte, and what is read in several is whole.
func TestBatchesAreBoundedInBytes(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	delta := []byte(strings.Repeat("0123456789", batchBytes/10))
	for i := range 3 {
		w := output{}.write(i, i+1)
		w.Delta = delta
		require.NoError(t, s.Write(ctx, 1, w))
	}
	p := s.(*store).part
	known, err := p.first(ctx)
	require.NoError(t, err)
	batches, parts := 0, 0
	for end := lastOn(t, b, "_understudy.OUT"); known.Sequence < end; batches++ {
		more, err := p.batch(ctx, p.hidden, known)
		require.NoError(t, err)
		bytes := 0
		for _, m := range more {
			bytes += len(m.Data)
		}
		require.LessOrEqual(t, bytes, batchBytes+maxPart)
		parts += len(more)
		known = more[len(more)-1]
	}
	require.GreaterOrEqual(t, batches, 3)
	require.Len(t, b.hidden(), 1+parts)
	for _, d := range b.fence(b.open(), 1).Deltas {
		require.True(t, string(d) == string(delta), "a delta came back otherwise")
	}
}

// lastOn gives the sequence of the last message of a subject.
func lastOn(t *testing.T, b *bench, subject string) uint64 {
	m, err := mustStream(t, b.js, "OUT").GetLastMsgForSubject(ctx, subject)
	require.NoError(t, err)
	return m.Sequence
}

// The connection breaks in the middle of a batch, several times: what came is not read again, and nothing is missing.
func TestABatchThatBreaksGoesOnWhereItBroke(t *testing.T) {
	address := embedded(t).Addr().String()
	b := newBench(t, address)
	s := b.open()
	b.fence(s, 1)
	const n, cuts = 300, 4
	b.writeEach(s, n)
	var asked []uint64
	watch, err := b.js.Conn().Subscribe("$JS.API.DIRECT.GET.OUT", func(m *client.Msg) {
		var q question
		if json.Unmarshal(m.Data, &q) == nil {
			asked = append(asked, q.Seq)
		}
	})
	require.NoError(t, err)
	require.NoError(t, b.js.Conn().Flush())
	c := newCutter(t, address, 3, cuts)
	b.options.Connection.Servers = []string{c.listener.Addr().String()}
	stored := b.fence(b.open(), 1)
	require.Equal(t, cursorAt(n), stored.Cursor)
	require.Len(t, stored.Deltas, n)
	covers(t, stored.Deltas, 0, n)
	require.Zero(t, c.left())
	require.NoError(t, watch.Drain())
	require.Eventually(t, func() bool { return !watch.IsValid() }, 10*time.Second, time.Millisecond)
	require.Greater(t, len(asked), cuts/2, "batches broke")
	require.True(t, slices.IsSorted(asked), "%d", asked)
	require.Greater(t, asked[len(asked)-1], asked[0], "%d", asked)
}

// relay stands between a sink and the server's API, and answers requests for batches as it likes: it makes of an honest answer another.
type relay struct {
	conn    *client.Conn
	forge   func([]*client.Msg) []*client.Msg
	asked   func()       // is called before the server is asked for a batch; may be nil
	batches atomic.Int64 // that were asked for
	singles atomic.Int64 // messages that the leader was asked for
}

const relayDomain = "relay"

func newRelay(t *testing.T, address string, asked func(), forge func([]*client.Msg) []*client.Msg) *relay {
	r := &relay{conn: plain(t, address).Conn(), asked: asked, forge: forge}
	_, err := r.conn.Subscribe("$JS."+relayDomain+".API.>", func(m *client.Msg) {
		subject := strings.Replace(m.Subject, "."+relayDomain, "", 1)
		if strings.Contains(subject, ".DIRECT.GET.") {
			r.batches.Add(1)
			if r.asked != nil {
				r.asked()
			}
			for _, answer := range r.forge(r.batch(t, subject, m.Data)) {
				answer.Subject, answer.Reply = m.Reply, ""
				if err := r.conn.PublishMsg(answer); err != nil {
					t.Error(err)
				}
			}
			return
		}
		if strings.Contains(subject, ".MSG.GET.") {
			r.singles.Add(1)
		}
		answer, err := r.conn.Request(subject, m.Data, 5*time.Second)
		if err == nil {
			err = m.Respond(answer.Data)
		}
		if err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, err)
	require.NoError(t, r.conn.Flush())
	return r
}

// batch gets the server's answer, its end included.
func (r *relay) batch(t *testing.T, subject string, question []byte) (all []*client.Msg) {
	sub, err := r.conn.SubscribeSync(r.conn.NewInbox())
	if err == nil {
		defer sub.Unsubscribe()
		err = r.conn.PublishRequest(subject, sub.Subject, question)
	}
	for err == nil {
		var m *client.Msg
		if m, err = sub.NextMsg(5 * time.Second); err != nil {
			break
		}
		if all = append(all, m); m.Header.Get("Status") != "" {
			return all
		}
	}
	t.Error(err)
	return all
}

// chained makes it an answer that looks whole.
func chained(all []*client.Msg) []*client.Msg {
	before := uint64(0)
	for _, m := range all {
		m.Header.Set(jetstream.LastSequenceHeader, strconv.FormatUint(before, 10))
		if s := m.Header.Get(jetstream.SequenceHeader); s != "" {
			before, _ = strconv.ParseUint(s, 10, 64)
		}
	}
	return all
}

func honest(all []*client.Msg) []*client.Msg { return all }

func status(code string) []*client.Msg {
	return []*client.Msg{{Header: client.Header{"Status": {code}, "Description": {"Message Not Found"}}}}
}

// Whatever a server answers, one that is behind, or ahead, or does not know of batches, what is read is what the leader has.
func TestBatchesThatAreNotWhole(t *testing.T) {
	const writes, cutShort = 90, 40
	each := func(change func(h client.Header)) func(all []*client.Msg) []*client.Msg {
		return func(all []*client.Msg) []*client.Msg {
			for _, m := range all {
				change(m.Header)
			}
			return all
		}
	}
	for name, c := range map[string]struct {
		forge func(all []*client.Msg) []*client.Msg
		least int64 // messages that the leader is asked for by a fence
		most  int64 // 0 is no bound
	}{
		"honest": {forge: honest, most: 9},
		"a replica that is behind": {forge: func(all []*client.Msg) []*client.Msg {
			return chained(slices.DeleteFunc(all, func(m *client.Msg) bool {
				sequence, err := strconv.Atoi(m.Header.Get(jetstream.SequenceHeader))
				return err == nil && sequence > writes // about half of what is there
			}))
		}, least: writes / 2, most: writes/2 + 20},
		"a replica that has nothing yet": {forge: func([]*client.Msg) []*client.Msg { return status("404") }, least: writes},
		"a replica that was truncated before the leader": {forge: func(all []*client.Msg) []*client.Msg {
			return chained(all[min(5, len(all)-1):])
		}, least: writes},
		"a replica of a stream that was deleted": {forge: each(func(h client.Header) {
			if h.Get(jetstream.SequenceHeader) != "" {
				h.Set(jetstream.MsgIDHeader, "other")
			}
		}), least: writes},
		"a mirror": {forge: each(func(h client.Header) {
			if h.Get(jetstream.StreamHeader) != "" {
				h.Set(jetstream.StreamHeader, "MIRROR")
			}
		}), least: writes},
		"one message does not arrive": {forge: func(all []*client.Msg) []*client.Msg {
			return slices.Delete(all, len(all)/2, len(all)/2+1)
		}, most: 20},
		"an older server": {forge: func(all []*client.Msg) []*client.Msg {
			all[0].Header.Del("Nats-Num-Pending")
			all[0].Header.Del(jetstream.LastSequenceHeader)
			return all[:1]
		}, least: writes},
		"a server that is not allowed to": {forge: func([]*client.Msg) []*client.Msg { return status("500") }, least: writes},
		"no answer":                       {forge: func([]*client.Msg) []*client.Msg { return nil }, least: writes},
		"no end":                          {forge: func(all []*client.Msg) []*client.Msg { return all[:len(all)-1] }, most: 9},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, embedded(t).ClientURL())
			s := b.open()
			b.fence(s, 1)
			b.writeEach(s, writes)
			sink := NewSink(b.options)
			sink.step = func(do, half func() error) error {
				if half == nil || sink.mu.parts[0].state == nil {
					return do() // the head
				}
				if err := half(); err != nil {
					return err
				}
				return errDied
			}
			dying, err := sink.Open(ctx, 0, 1)
			require.NoError(t, err)
			defer dying.Close()
			b.fence(dying, 2)
			require.ErrorIs(t, dying.Write(ctx, 2, output{}.write(writes, writes+cutShort)), errDied)

			r := newRelay(t, b.options.Connection.Servers[0], nil, c.forge)
			b.options.Connection.Domain, b.options.Connection.Timeout = relayDomain, 300*time.Millisecond
			s = b.open()
			stored := b.fence(s, 3)
			require.Equal(t, cursorAt(writes), stored.Cursor)
			covers(t, stored.Deltas, 0, writes+cutShort)
			require.Equal(t, name == "no answer", s.(*store).part.deaf != nil, "a user without the right to ask")
			require.GreaterOrEqual(t, r.singles.Load(), c.least)
			if c.most > 0 {
				require.LessOrEqual(t, r.singles.Load(), c.most)
			}
			require.NoError(t, s.Write(ctx, 3, output{}.write(writes, writes+cutShort)), "compares with what is visible")
			require.NotZero(t, r.batches.Load())
			require.Equal(t, output{}.records(0, writes+cutShort), b.visible())
			require.ErrorIs(t, dying.Write(ctx, 2, output{}.write(writes, writes+1)), operator.ErrFenced)
		})
	}
}

// A server that does not answer requests for batches, of a user without the right to, is asked once in the life of a connection.
func TestARefusedBatchIsAskedForOnce(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	b.writeEach(s, 20)
	r := newRelay(t, b.options.Connection.Servers[0], nil, func([]*client.Msg) []*client.Msg { return nil })
	b.options.Connection.Domain, b.options.Connection.Timeout = relayDomain, 300*time.Millisecond
	reader := b.open()
	for range 3 {
		require.Len(t, b.fence(reader, 1).Deltas, 20)
	}
	require.EqualValues(t, 1, r.batches.Load())
}

// firstOn gives the sequence of the first message of the hidden subject.
func firstOn(t *testing.T, b *bench) uint64 {
	meta, err := b.hidden()[0].Metadata()
	require.NoError(t, err)
	return meta.Sequence.Stream
}

// A writer truncates when a batch is asked for, or when it is on its way: what is missing then is missed by nobody, and it is no replica's fault.
func TestATruncationBesideABatch(t *testing.T) {
	for _, before := range []bool{true, false} {
		b := newBench(t, embedded(t).ClientURL())
		s := b.open()
		b.fence(s, 1)
		const n = 200
		for i := range n {
			require.NoError(t, s.Write(ctx, 1, output{}.write(i, i+1)))
			if i == 55 || i == 105 { // heads in between, behind which a purge ends
				require.NoError(t, s.Truncate(ctx, determinant.Epoch(i/epochRecords), nil))
			}
		}
		begin := firstOn(t, b)
		first := true
		truncate := func() {
			if first {
				first = false
				require.NoError(t, s.Truncate(ctx, n/epochRecords, nil))
			}
		}
		asked, forge := truncate, honest
		if !before {
			asked, forge = nil, func(all []*client.Msg) []*client.Msg { truncate(); return all }
		}
		r := newRelay(t, b.options.Connection.Servers[0], asked, forge)
		b.options.Connection.Domain = relayDomain
		reader := b.open()
		stored := b.fence(reader, 1)
		require.False(t, first)
		require.Equal(t, cursorAt(n), stored.Cursor)
		require.Greater(t, firstOn(t, b), begin, "what the batch was to begin with is gone")
		covers(t, stored.Deltas, 10*epochRecords, n)
		require.LessOrEqual(t, len(stored.Deltas), n-10*epochRecords+1, "what was truncated is left out")
		require.LessOrEqual(t, r.singles.Load(), int64(12), "the leader is not asked for each")
	}
}
