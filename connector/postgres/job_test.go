package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/operator"
)

// number is a row of the jobs' input, counted one of their output: which of its class it is depends on the order in which a task
// read its inputs.
type number struct {
	ID int64 `json:"id"`
}

type counted struct {
	ID    int64 `json:"id"`
	Class int64 `json:"class"`
	Count int64 `json:"count"`
}

// jobPlace is the tables of a job.
type jobPlace struct {
	*server
	in, out string
}

func newJobPlace(t testing.TB, rows int) *jobPlace {
	p := &jobPlace{server: use(t), in: freshName(), out: freshName()}
	p.exec(t, fmt.Sprintf(`CREATE TABLE %s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)`, p.in))
	p.exec(t, fmt.Sprintf(`INSERT INTO %s OVERRIDING SYSTEM VALUE SELECT generate_series(1, %d)`, p.in, rows))
	p.exec(t, fmt.Sprintf(`ALTER TABLE %s ALTER id RESTART WITH %d`, p.in, rows+1))
	p.exec(t, fmt.Sprintf(`CREATE TABLE %s (id bigint, class bigint, count bigint, understudy_task integer, understudy_row bigint,
		PRIMARY KEY (understudy_task, understudy_row))`, p.out))
	return p
}

// job counts the numbers of each class. Its counts are not what any two runs agree on.
func (p *jobPlace) job(told *atomic.Int64) *operator.Job {
	access := p.access()
	access.Waiting = func(err error) { told.Add(int64(oneIf(err != nil))) }
	job := operator.NewJob("count")
	numbers := operator.From(job, "numbers", DecodedJSON[number](Rows(SourceOptions{Access: access, Table: p.in, Key: "id", PageRows: 50})))
	byClass := operator.KeyBy(numbers, func(n number) int64 { return n.ID % 7 })
	counts := operator.Aggregate(byClass, "count", func(c counted, n number) (counted, error) {
		return counted{ID: n.ID, Class: n.ID % 7, Count: c.Count + 1}, nil
	})
	operator.To(counts, "out", Sink(SinkOptions{Access: access, Table: p.out, Patience: 100 * time.Millisecond}))
	return job
}

// verify looks at the output with PostgreSQL's own client: each number once, each count of a class once, in order, and each task's
// rows without a gap.
func (p *jobPlace) verify(t testing.TB, rows int) {
	t.Helper()
	require.Equal(t, []string{fmt.Sprintf("%d|%[1]d|1|%[1]d", rows)},
		p.psql(t, fmt.Sprintf("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM %s", p.out)))
	require.Empty(t, p.psql(t, fmt.Sprintf(`SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY class ORDER BY understudy_task, understudy_row) AS nth,
		row_number() OVER (PARTITION BY understudy_task ORDER BY understudy_row) - 1 AS row FROM %s) AS o WHERE count <> nth OR understudy_row <> row`, p.out)))
}

// outages runs a job and meanwhile kills the server n times, as the output grows, and starts it again when the job has noticed and tried for
// a while. It gives how often the job noticed before it was done, and what came of it.
func (p *jobPlace) outages(t *testing.T, n, rows int, told *atomic.Int64, run func() error) (noticed int, err error) {
	result := make(chan error, 1)
	go func() { result <- run() }()
	over := func(until func() bool) bool {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !until() {
			select {
			case err = <-result:
				return true
			case <-tick.C:
			}
		}
		return false
	}
	for i := 1; i <= n; i++ {
		if over(func() bool {
			return p.rows(t, fmt.Sprintf("SELECT (count(*) >= %d)::text FROM %s", i*rows/(n+2), p.out))[0] == "true"
		}) {
			return noticed, err
		}
		p.kill(t)
		before := told.Load()
		ended := over(func() bool { return told.Load() >= before+5 })
		p.start(t)
		if ended {
			return noticed, err
		}
		noticed++
	}
	return noticed, <-result
}

func TestJobInSpiteOfKillsAndOutages(t *testing.T) {
	for _, c := range []struct {
		mode    understudy.Mode
		target  string
		kills   int
		outages int
	}{
		{understudy.ExactlyOnce, "task", 15, 3},
		{understudy.ExactlyOnce, "worker", 5, 2},
		{understudy.GlobalRollback, "task", 8, 2},
	} {
		t.Run(fmt.Sprintf("%v/%s", c.mode, c.target), func(t *testing.T) {
			const rows = 20000
			p := newJobPlace(t, rows)
			var told atomic.Int64
			limit, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			var sum understudy.Summary
			noticed, err := p.outages(t, c.outages, rows, &told, func() (err error) {
				sum, err = understudy.Run(limit, p.job(&told), understudy.Options{
					Parallelism: 2, Mode: c.mode, CheckpointInterval: 50 * time.Millisecond, StateDir: t.TempDir(),
					Chaos: &understudy.Chaos{Kill: 50 * time.Millisecond, Target: cluster.Target(c.target), Seed: 710, Limit: c.kills},
				})
				return err
			})
			require.NoError(t, err)
			t.Logf("%d outages noticed, %d kills, %d tasks restarted, %d rollbacks, %d checkpoints in %.1f s; the server was missed %d times", noticed, sum.Kills,
				sum.TasksRestarted, sum.Rollbacks, sum.Checkpoints, sum.Seconds, told.Load())
			require.Positive(t, sum.Kills)
			require.Positive(t, noticed)
			require.Equal(t, c.mode == understudy.GlobalRollback, sum.Rollbacks > 0)
			p.verify(t, rows)
		})
	}
}

// TestJobGoesOn stops a job that follows a table, as often as one likes; and another job may not write where it does.
func TestJobGoesOn(t *testing.T) {
	p := newJobPlace(t, 300)
	state := t.TempDir()
	access := p.access()
	job := func() *operator.Job {
		job := operator.NewJob("copy")
		rows := operator.From(job, "rows", DecodedJSON[number](Rows(SourceOptions{Access: access, Table: p.in, Key: "id", Follow: true})))
		counts := operator.Map(rows, "count", func(_ operator.Context, n number) (counted, error) { return counted{ID: n.ID}, nil })
		operator.To(counts, "out", Sink(SinkOptions{Access: access, Table: p.out, Columns: []string{"id", "class", "count"}}))
		return job
	}
	for i := 1; i <= 3; i++ {
		running, stop := context.WithCancel(ctx)
		result := make(chan error, 1)
		go func() {
			_, err := understudy.Run(running, job(), understudy.Options{StateDir: state, CheckpointInterval: 20 * time.Millisecond})
			result <- err
		}()
		p.exec(t, fmt.Sprintf("INSERT INTO %s SELECT FROM generate_series(1, 100)", p.in))
		p.until(t, fmt.Sprintf("SELECT count(*) >= %d FROM %s", 250+100*i, p.out), "true")
		stop()
		require.ErrorIs(t, <-result, context.Canceled)
	}
	_, err := understudy.Run(ctx, job(), understudy.Options{StateDir: t.TempDir()})
	require.ErrorContains(t, err, strings.TrimPrefix(ErrJob.Error(), "postgres: "))
	require.Equal(t, []string{"0"}, p.psql(t, fmt.Sprintf("SELECT count(*) - count(DISTINCT id) FROM %s", p.out)))
}
