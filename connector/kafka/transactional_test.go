package kafka

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// ledgerOf is what a job's ledger knows of its transactional sink, and the task's lives over several processes.
type ledgerOf struct {
	topic       string
	reader      *brokers
	incarnation determinant.Incarnation
	epoch       determinant.Epoch    // of the newest committed checkpoint
	named       operator.Transaction // that it names
	output      []string             // up to it
}

var errCrash = errors.New("crash")

// live lets a process be the sink for some epochs. Each life writes records of its own.
func (l *ledgerOf) live(t testing.TB, sink *TransactionalTopic, epochs int) error {
	st, err := sink.OpenTransactions(ctx, 0, 1)
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	l.incarnation++
	i := l.incarnation
	listed, err := st.Fence(ctx, i)
	if err != nil {
		return err
	}
	if l.epoch > 0 {
		if err := st.Commit(ctx, i, l.named); err != nil {
			return err
		}
	}
	for _, other := range listed {
		if other != l.named {
			if err := st.Abort(ctx, i, other); err != nil {
				return err
			}
		}
	}
	l.check(t)
	for l.epoch < determinant.Epoch(epochs) {
		e := l.epoch + 1
		var written []string
		for k := range 2 {
			var records [][]byte
			for n := range 3 {
				records = append(records, fmt.Appendf(nil, "epoch %d, life %d, record %d", e, i, k*3+n))
				written = append(written, string(records[n]))
			}
			if e%3 == 0 { // an empty epoch
				records, written = nil, nil
			}
			if err := st.Write(ctx, i, records); err != nil {
				return err
			}
		}
		tx, err := st.Prepare(ctx, i, e)
		if err != nil {
			return err
		}
		l.checkNothingMore(t)
		l.epoch, l.named, l.output = e, tx, append(l.output, written...)
		if err := st.Commit(ctx, i, tx); err != nil {
			return err
		}
		l.check(t)
	}
	return nil
}

// check compares what can be seen with what must be.
func (l *ledgerOf) check(t testing.TB) {
	t.Helper()
	require.Equal(t, l.output, readCommitted(t, l.reader, place{l.topic, 0}))
}

func (l *ledgerOf) checkNothingMore(t testing.TB) {
	t.Helper()
	seen := readCommitted(t, l.reader, place{l.topic, 0})
	require.Equal(t, l.output[:min(len(seen), len(l.output))], seen)
}

func newLedgerOf(t testing.TB, s *server) *ledgerOf {
	reader, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	t.Cleanup(reader.close)
	return &ledgerOf{topic: s.topic(t, 1, nil), reader: reader}
}

// TestTransactionsCrashAtEveryRequest lets the process die before and after each request that changes something, and its successor too.
func TestTransactionsCrashAtEveryRequest(t *testing.T) {
	t.Parallel()
	s := serve(t)
	const epochs = 4
	crashing := func(l *ledgerOf, at int, after bool) *TransactionalTopic {
		var sink *TransactionalTopic
		n, calls := newNetwork(t), 0
		n.do = func(_ kmsg.Key, step func() error) error {
			if calls++; at == 0 || calls < at {
				return step()
			}
			defer sink.kill()
			if calls == at && after {
				return errors.Join(step(), errCrash)
			}
			return errCrash
		}
		o := s.sink()
		o.Client.dial = n.dial
		sink = Transactional(l.topic, o)
		return sink
	}
	for at := 1; ; at++ {
		finished := false
		for _, after := range []bool{false, true} {
			l := newLedgerOf(t, s)
			err := l.live(t, crashing(l, at, after), epochs)
			finished = err == nil
			if err != nil {
				require.ErrorIs(t, err, errDead)
				if err = l.live(t, crashing(l, 1+at%6, after), epochs); err != nil {
					require.ErrorIs(t, err, errDead)
				}
			}
			require.NoError(t, l.live(t, Transactional(l.topic, s.sink()), epochs+1))
		}
		if finished {
			require.Greater(t, at, 10)
			return
		}
	}
}

func transactional(t testing.TB, topic string, o SinkOptions) operator.TransactionalStore {
	st, err := Transactional(topic, o).OpenTransactions(ctx, 0, 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return st
}

func mustPrepare(t testing.TB, st operator.TransactionalStore, i determinant.Incarnation, e determinant.Epoch, records ...string) operator.Transaction {
	for _, r := range records {
		require.NoError(t, st.Write(ctx, i, [][]byte{[]byte(r)}))
	}
	tx, err := st.Prepare(ctx, i, e)
	require.NoError(t, err)
	return tx
}

func mustFence(t testing.TB, st operator.TransactionalStore, i determinant.Incarnation, want ...operator.Transaction) {
	listed, err := st.Fence(ctx, i)
	require.NoError(t, err)
	require.Equal(t, append([]operator.Transaction(nil), want...), listed)
}

func TestTransactionsByOtherProcesses(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	first, second := transactional(t, topic, s.sink()), transactional(t, topic, s.sink())
	require.ErrorIs(t, first.Write(ctx, 1, [][]byte{[]byte("x")}), ErrUnfenced)
	mustFence(t, first, 1)
	one := mustPrepare(t, first, 1, 1, "a", "b")
	two := mustPrepare(t, first, 1, 2, "c")
	require.NoError(t, first.Write(ctx, 1, [][]byte{[]byte("open")}))
	require.Empty(t, s.values(t, topic, 0), "nothing is visible before it is committed")
	mustFence(t, second, 2, one, two)
	for _, err := range []error{
		first.Write(ctx, 1, [][]byte{[]byte("late")}), first.Write(ctx, 1, nil), first.Commit(ctx, 1, one), first.Abort(ctx, 1, two),
		func() error { _, err := first.Prepare(ctx, 1, 3); return err }(), func() error { _, err := first.Fence(ctx, 1); return err }(),
	} {
		require.ErrorIs(t, err, operator.ErrFenced)
	}
	require.NoError(t, second.Commit(ctx, 2, one))
	require.NoError(t, second.Abort(ctx, 2, two))
	require.Equal(t, []string{"a", "b"}, s.values(t, topic, 0))
	three := mustPrepare(t, second, 2, 2, "d")
	require.NoError(t, second.Commit(ctx, 2, three))
	for range 3 {
		require.NoError(t, second.Commit(ctx, 2, one), "however much was committed since")
		require.NoError(t, second.Abort(ctx, 2, one), "what was committed stays")
		require.NoError(t, second.Abort(ctx, 2, two))
		require.ErrorIs(t, second.Commit(ctx, 2, two), operator.ErrPermanent)
	}
	require.ErrorIs(t, second.Commit(ctx, 2, operator.Transaction{Epoch: 9, Handle: "9 of x"}), operator.ErrPermanent)
	require.ErrorIs(t, second.Commit(ctx, 2, operator.Transaction{Epoch: 9, Handle: "x"}), operator.ErrPermanent)
	require.Equal(t, []string{"a", "b", "d"}, s.values(t, topic, 0))
	require.ErrorIs(t, second.Commit(ctx, 3, one), ErrUnfenced)
}

// TestManyPreparedTransactions prepares several before the first is committed.
func TestManyPreparedTransactions(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	st := transactional(t, topic, s.sink())
	mustFence(t, st, 1)
	var all []operator.Transaction
	var want []string
	for e := range determinant.Epoch(5) {
		want = append(want, fmt.Sprint(e))
		all = append(all, mustPrepare(t, st, 1, e+1, want[e]))
	}
	for i, tx := range all {
		require.NoError(t, st.Commit(ctx, 1, tx))
		require.Equal(t, want[:i+1], s.values(t, topic, 0))
	}
	again := mustPrepare(t, st, 1, 6, "again") // a slot is used once more
	require.NoError(t, st.Commit(ctx, 1, again))
	require.NoError(t, st.Commit(ctx, 1, all[0]), "of the slot's transaction before")
	mustFence(t, st, 2)
	require.Equal(t, append(want, "again"), s.values(t, topic, 0))
}

// TestTransactionsThatLastTooLong has the brokers drop a transaction that is prepared, and one that is open.
func TestTransactionsThatLastTooLong(t *testing.T) {
	t.Parallel()
	s := serve(t)
	o := s.sink()
	o.TransactionTimeout = 3 * time.Second
	topic := s.topic(t, 1, nil)
	st := transactional(t, topic, o)
	mustFence(t, st, 1)
	tx := mustPrepare(t, st, 1, 1, "prepared")
	require.NoError(t, st.Write(ctx, 1, [][]byte{[]byte("open")}))
	b, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer b.close()
	gone := func() bool { // the brokers have aborted both when the committed part reaches the end
		end, err := b.offset(ctx, place{topic, 0}, atEnd, true)
		require.NoError(t, err)
		high, err := b.offset(ctx, place{topic, 0}, atEnd, false)
		require.NoError(t, err)
		return end == high
	}
	require.Eventually(t, gone, 90*time.Second, 10*time.Millisecond)
	_, err = st.Prepare(ctx, 1, 2)
	require.ErrorIs(t, err, ErrAborted)
	require.NotErrorIs(t, err, operator.ErrPermanent, "its records will be written again")
	err = st.Commit(ctx, 1, tx)
	require.ErrorIs(t, err, ErrExpired)
	require.ErrorIs(t, err, operator.ErrPermanent, "those of a checkpoint will not")
	require.NoError(t, st.Abort(ctx, 1, tx))
	mustFence(t, st, 2)
	require.Empty(t, s.values(t, topic, 0))

	o.TransactionTimeout = 500 * time.Hour
	st = transactional(t, s.topic(t, 1, nil), o)
	mustFence(t, st, 1)
	err = st.Write(ctx, 1, [][]byte{[]byte("x")})
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "INVALID_TRANSACTION_TIMEOUT")
}

// TestTransactionsOutage cuts the network in every phase, for longer than a request waits, and mends it.
func TestTransactionsOutage(t *testing.T) {
	t.Parallel()
	s := serve(t)
	topic := s.topic(t, 1, nil)
	n := newNetwork(t)
	o := s.sink()
	o.Client.dial = n.dial
	told := make(chan struct{}, 1)
	o.Waiting = func(string, error) {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	st := transactional(t, topic, o)
	mustFence(t, st, 1)
	through := func(f func() error) {
		n.down()
		result := make(chan error, 1)
		go func() { result <- f() }()
		<-told
		select {
		case err := <-result:
			require.FailNow(t, "it did not wait", "%v", err)
		default:
		}
		n.up()
		require.NoError(t, <-result)
	}
	var tx operator.Transaction
	through(func() error { return st.Write(ctx, 1, [][]byte{[]byte("a")}) })
	through(func() error { return st.Write(ctx, 1, [][]byte{[]byte("b")}) })
	through(func() (err error) { tx, err = st.Prepare(ctx, 1, 1); return err })
	through(func() error { return st.Commit(ctx, 1, tx) })
	require.Equal(t, []string{"a", "b"}, s.values(t, topic, 0))
	through(func() error { _, err := st.Fence(ctx, 2); return err })
	tx = mustPrepare(t, st, 2, 2, "c")
	through(func() error { return st.Commit(ctx, 2, tx) })
	require.Equal(t, []string{"a", "b", "c"}, s.values(t, topic, 0))
}

// TestRegisterIsTidied commits more often than entries are kept.
func TestRegisterIsTidied(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	st := transactional(t, topic, s.sink())
	mustFence(t, st, 1)
	for e := range determinant.Epoch(tidyEvery) {
		require.NoError(t, st.Commit(ctx, 1, mustPrepare(t, st, 1, e+1, fmt.Sprint(e))))
	}
	b, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer b.close()
	journal := place{topic + ".understudy", 0}
	start, err := b.offset(ctx, journal, atStart, false)
	require.NoError(t, err)
	end, err := b.offset(ctx, journal, atEnd, false)
	require.NoError(t, err)
	require.Less(t, end-start, int64(4*tidyEvery))
	require.Positive(t, start)
	mustFence(t, transactional(t, topic, s.sink()), 2)
	require.Len(t, s.values(t, topic, 0), tidyEvery)
	require.NoError(t, b.remove(ctx, journal, -1))
	_, err = transactional(t, topic, s.sink()).Fence(ctx, 3)
	require.ErrorIs(t, err, ErrCorrupt, "everything was removed")
}
