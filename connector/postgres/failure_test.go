package postgres

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

var every = flag.Bool("postgres.all", false, "break connections at every request, and not at some")

// TestConnectionBreaksAtEveryRequest has the connection break at each request that a writer makes, before the server has it, in
// the middle of it, and after the server has done it. No call fails, and each record is there once.
func TestConnectionBreaksAtEveryRequest(t *testing.T) {
	for _, f := range []fault{lost, torn, unheard} {
		for at, more := 0, true; more; at++ {
			if !*every && at%5 != int(f) {
				continue
			}
			p := newPlace(t)
			through := newProxy(t, p.server)
			waits := 0
			o := p.options()
			o.Access = through.access(p.server)
			o.Waiting = func(err error) { waits += oneIf(err != nil) }
			o.Patience = time.Minute // nobody else opens connections
			through.next(at, f)
			s := open(t, o)
			str := stream{10}
			before := stream{}
			name := fmt.Sprintf("fault %d at request %d", f, at)
			fence(t, s, 1)
			require.NoError(t, s.Write(ctx, 1, before.write(0, 10)), name)
			require.NoError(t, s.Write(ctx, 1, operator.StoreWrite{Start: cursorAt(10), End: cursorAt(10), Delta: []byte("10 10")}), name)
			require.NoError(t, s.Truncate(ctx, 1, nil), name)
			require.NoError(t, s.Write(ctx, 1, before.write(10, 13)), name)
			stored, err := s.Fence(ctx, operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{Cursor: cursorAt(10)}})
			require.NoError(t, err, name)
			require.Equal(t, cursorAt(10), stored.Cursor, name)
			require.NoError(t, s.Write(ctx, 2, str.write(10, 15)), name)
			stored = fence1(t, s, 3)
			require.Equal(t, cursorAt(15), stored.Cursor, name)
			covers(t, stored.Deltas, 10, 15)
			require.Equal(t, str.rows(15), p.rows(t, p.query()), name)
			require.NoError(t, s.Close())
			more = through.happened()
			// A fault in a connection's farewell, or in what is tried beside, need not be told.
			require.True(t, more || waits == 0, "%s: %d times somebody was told", name, waits)
			require.Less(t, at, 100)
			through.close()
		}
	}
}

func oneIf(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func fence1(t require.TestingT, s operator.CausalStore, i determinant.Incarnation) operator.Stored {
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: i, Generation: 1})
	require.NoError(t, err)
	return stored
}

// TestAWriterThatIsHeardLate lets a request of a replaced writer reach the server after its successor has written.
func TestAWriterThatIsHeardLate(t *testing.T) {
	for _, f := range []fault{heldBack, endHeld} {
		p := newPlace(t)
		through := newProxy(t, p.server)
		o := p.options()
		o.Access = through.access(p.server)
		zombie := openHere(t, o)
		var str stream
		fence(t, zombie, 1)
		require.NoError(t, zombie.Write(ctx, 1, str.write(0, 5)))
		require.NoError(t, zombie.Write(ctx, 1, str.write(5, 10)))
		through.next(0, f)
		result := make(chan error, 1)
		go func() { result <- zombie.Write(ctx, 1, str.write(10, 15)) }()
		<-through.held

		o.Access = p.access()
		next := openHere(t, o)
		// With endHeld the zombie's transaction has the task's row, and must be ended.
		require.Equal(t, cursorAt(10), fence(t, next, 2).Cursor)
		require.NoError(t, next.Write(ctx, 2, str.write(10, 12)))
		close(through.release)
		require.ErrorIs(t, <-result, operator.ErrFenced)
		require.ErrorIs(t, zombie.Write(ctx, 1, str.write(15, 20)), operator.ErrFenced)
		require.NoError(t, zombie.Truncate(ctx, 1, nil), "what is committed is so for everybody")
		require.NoError(t, next.Write(ctx, 2, str.write(12, 20)))
		require.Equal(t, str.rows(20), p.shownRows(t))
	}
}

// TestAnotherSessionIsWaitedFor has a user's transaction hold the sink's row: it is not ended.
func TestAnotherSessionIsWaitedFor(t *testing.T) {
	p := newPlace(t)
	o := p.options()
	o.Patience = time.Millisecond
	s := openHere(t, o)
	fence(t, s, 1)
	user, err := p.connect(t).Begin(ctx)
	require.NoError(t, err)
	_, err = user.Exec(ctx, fmt.Sprintf("SELECT FROM %s__sink FOR UPDATE", p.table))
	require.NoError(t, err)
	result := make(chan error, 1)
	go func() {
		_, err := s.Fence(ctx, operator.Fence{Incarnation: 2})
		result <- err
	}()
	p.until(t, `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'understudy sink' AND wait_event_type = 'Lock'`, "1")
	for range 2 { // the second was begun after the first
		p.until(t, fmt.Sprintf(`SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'understudy sink'
			AND query LIKE '%%pg_terminate_backend%%' AND query_start > '%s'::timestamptz`, p.rows(t, "SELECT clock_timestamp()::text")[0]), "true")
	}
	require.NoError(t, user.Commit(ctx), "it still can")
	require.NoError(t, <-result)
}

// until waits for a query to give a text.
func (s *server) until(t testing.TB, sql, want string) {
	t.Helper()
	conn := s.connect(t)
	defer conn.Close(ctx)
	var got string
	require.Eventually(t, func() bool {
		return conn.QueryRow(ctx, "SELECT ("+sql+")::text").Scan(&got) == nil && got == want
	}, 20*time.Second, time.Millisecond, sql)
}

// TestOutage takes the server away in the middle of writes, by kill -9 and by stopping it, for longer than any call may take.
func TestOutage(t *testing.T) {
	p := newPlace(t)
	var waits atomic.Int64
	o := p.options()
	o.Waiting = func(err error) { waits.Add(int64(oneIf(err != nil))) }
	o.ConnectTimeout, o.call = 50*time.Millisecond, 50*time.Millisecond
	s := openHere(t, o)
	fence(t, s, 1)
	var str stream
	records, enough, result := 0, make(chan struct{}), make(chan error, 1)
	go func() { // as long as there are outages: how fast it writes must not matter
		for {
			select {
			case <-enough:
				result <- nil
				return
			default:
			}
			if err := s.Write(ctx, 1, str.write(records, records+5)); err != nil {
				result <- err
				return
			}
			records += 5
		}
	}()
	outage := func(begin, end func()) {
		p.until(t, fmt.Sprintf(`SELECT count(*) > %d FROM %s`, len(p.rows(t, p.query())), p.table), "true")
		begin()
		told := waits.Load()
		more := assert.Eventually(t, func() bool { return waits.Load() > told+3 }, 20*time.Second, time.Millisecond)
		end() // whatever happens: other tests use the server too
		require.True(t, more, "nobody waits")
	}
	for range 2 {
		outage(func() { p.kill(t) }, func() { p.start(t) })
		var stopped []int
		outage(func() { stopped = p.stop(t) }, func() {
			for _, pid := range stopped {
				_ = syscall.Kill(pid, syscall.SIGCONT) // some have ended by themselves
			}
		})
	}
	close(enough)
	require.NoError(t, <-result)
	require.Equal(t, str.rows(records), p.shownRows(t))
	stored := fence(t, s, 2)
	require.Equal(t, cursorAt(records), stored.Cursor)
	covers(t, stored.Deltas, 0, records)
}

// TestASlowServerGetsMoreTime has each connection take far longer than the first try to connect may take.
func TestASlowServerGetsMoreTime(t *testing.T) {
	p := newPlace(t)
	through := newProxy(t, p.server)
	through.delay = 60 * time.Millisecond
	waits := 0
	o := p.options()
	o.Access = through.access(p.server)
	o.Waiting = func(err error) { waits += oneIf(err != nil) }
	o.Patience, o.ConnectTimeout = time.Minute, 5*time.Millisecond
	s := openHere(t, o)
	fence(t, s, 1)
	require.NoError(t, s.Write(ctx, 1, stream{}.write(0, 5)))
	require.GreaterOrEqual(t, waits, 4, "tries of 5, 10, 20 and 40 ms do not suffice")
}

// TestCloseEndsWaiting closes a store, and ends a context, while calls wait for a server that is gone.
func TestCloseEndsWaiting(t *testing.T) {
	p := newPlace(t)
	waiting := make(chan struct{}, 1000)
	o := p.options()
	o.Waiting = func(err error) {
		if err != nil {
			waiting <- struct{}{}
		}
	}
	s := openHere(t, o)
	fence(t, s, 1)
	p.kill(t)
	defer p.start(t)
	ending, cancel := context.WithCancel(ctx)
	results := make(chan error, 3)
	go func() { results <- s.Write(ending, 1, stream{}.write(0, 5)) }()
	<-waiting
	require.NotEmpty(t, s.(operator.Waiter).Waiting())
	cancel()
	require.ErrorIs(t, <-results, context.Canceled)
	go func() { results <- s.Write(ctx, 1, stream{}.write(0, 5)) }()
	go func() { results <- s.Truncate(ctx, 1, nil) }()
	go func() {
		_, err := s.Fence(ctx, operator.Fence{Incarnation: 2})
		results <- err
	}()
	<-waiting
	<-waiting
	require.NoError(t, s.Close())
	for range 3 {
		require.ErrorIs(t, <-results, os.ErrClosed)
	}
	require.Empty(t, s.(operator.Waiter).Waiting())
}
