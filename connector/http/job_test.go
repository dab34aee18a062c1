package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/operator"
)

// Parcel is what the test's requests carry, and drawn what its job makes of it: something that no replay makes again by itself.
type Parcel struct {
	Key  string `json:"key"`
	Line int    `json:"line"`
}

type drawn struct {
	Parcel
	Count int    `json:"count"` // of this parcel's poster so far
	Draw  uint64 `json:"draw"`
}

// drawJob reads from ingest servers and posts to a receiver; in between, records are shuffled by key, counted, and given a random number.
func drawJob(nodes []Node, receiver, dir string, served func(task int, why string)) *operator.Job {
	job := operator.NewJob("parcels")
	lines := operator.From(job, "in", JSON[Parcel](SourceOptions{Nodes: nodes, Wait: 200 * time.Millisecond, RetryMax: 50 * time.Millisecond}))
	byPoster := operator.KeyBy(lines, func(p Parcel) string { return p.Key[:1] })
	counted := operator.Aggregate(byPoster, "count", func(d drawn, p Parcel) (drawn, error) {
		return drawn{Parcel: p, Count: d.Count + 1}, nil
	})
	out := operator.Map(counted, "draw", func(ctx operator.Context, d drawn) (drawn, error) {
		d.Draw = ctx.Rand().Uint64()
		return d, nil
	})
	o := WebhookOptions{Dir: dir, MaxRecords: 7, RetryFirst: time.Millisecond, RetryMax: 20 * time.Millisecond, Waiting: served}
	operator.To(out, "out", NewWebhook(receiver, o))
	return job
}

// playJob runs the job of TestJobIsKilled until its input ends.
func playJob(r *role) error {
	fmt.Println("running")
	_, err := understudy.Run(context.Background(), drawJob(r.Nodes, r.Receiver, filepath.Join(r.Dir, "hook"), nil), understudy.Options{
		StateDir: filepath.Join(r.Dir, "state"), Parallelism: 2, CheckpointInterval: 50 * time.Millisecond,
	})
	if err == nil {
		fmt.Println("done")
	}
	return err
}

// flaky lets a receiver refuse one request of so many, and lose the answers of others.
func flaky(r *taker) {
	r.behave(func(w http.ResponseWriter, n int) bool {
		if n%5 != 0 {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}, func(w http.ResponseWriter, n int) {
		if n%7 == 0 {
			hangUp(w)
		}
	})
}

// feed posts requests to servers, and ends their logs.
func feed(t *testing.T, b *bench, posters, requests int, pace time.Duration) (lines int) {
	all := make([]*poster, posters)
	ended := make(chan struct{})
	for i := range all {
		all[i] = &poster{number: i, nodes: b.nodes, client: b.client, requests: requests, pace: pace, answers: map[string]Accepted{}, bodies: map[string]string{}}
		go func() { all[i].run(rand.New(rand.NewPCG(3, uint64(i)))); ended <- struct{}{} }()
	}
	for range all {
		<-ended
	}
	for _, p := range all {
		for _, a := range p.answers {
			lines += int(a.Lines)
		}
	}
	for _, n := range b.nodes {
		for {
			w, err := b.client.Post(n.URL+"/v1/end", "", nil)
			require.NoError(t, err)
			require.NoError(t, w.Body.Close())
			if w.StatusCode == http.StatusOK {
				break
			}
			require.Equal(t, http.StatusServiceUnavailable, w.StatusCode) // the disk was too slow
			<-time.After(10 * time.Millisecond)
		}
	}
	return lines
}

// checkParcels says that each parcel was shown, and, if it is to be, once, and counted once.
func checkParcels(t *testing.T, r *taker, lines int, once bool) {
	t.Helper()
	r.check()
	seen, counts := make(map[Parcel]int), make(map[string]map[int]int)
	for task := range 2 {
		for _, text := range r.records(task) {
			var d drawn
			require.NoError(t, json.Unmarshal([]byte(text), &d))
			seen[d.Parcel]++
			if counts[d.Key[:1]] == nil {
				counts[d.Key[:1]] = make(map[int]int)
			}
			counts[d.Key[:1]][d.Count]++
		}
	}
	require.Len(t, seen, lines)
	if !once {
		return
	}
	for p, n := range seen {
		require.Equal(t, 1, n, "%v", p)
	}
	for key, of := range counts {
		for i := range of {
			require.Equal(t, 1, of[i], "count %d of poster %s", i, key)
			require.LessOrEqual(t, i, len(of))
		}
	}
}

// TestTasksAreKilled kills tasks of a job between ingest servers and a receiver that takes each id once.
func TestTasksAreKilled(t *testing.T) {
	t.Parallel()
	for _, mode := range []understudy.Mode{understudy.ExactlyOnce, understudy.AtLeastOnce, understudy.GlobalRollback} {
		t.Run(mode.String(), func(t *testing.T) {
			b, r, dir := newBench(t, 2, nil), newTaker(t), t.TempDir()
			b.ready(0, 1)
			flaky(r)
			type result struct {
				s   understudy.Summary
				err error
			}
			ended := make(chan result, 1)
			go func() {
				s, err := understudy.Run(t.Context(), drawJob(b.nodes, r.server.URL, filepath.Join(dir, "hook"), nil), understudy.Options{
					StateDir: filepath.Join(dir, "state"), Parallelism: 2, Mode: mode, CheckpointInterval: 100 * time.Millisecond,
					Chaos: &understudy.Chaos{Kill: 40 * time.Millisecond, Target: "task+worker", Seed: 1, Limit: 40},
				})
				ended <- result{s, err}
			}()
			lines := feed(t, b, 4, 150, 3*time.Millisecond)
			select {
			case e := <-ended:
				require.NoError(t, e.err)
				t.Logf("%v, %d kills; %d ids came again", e.s, e.s.Kills, r.repeated())
				require.Greater(t, e.s.Kills, 3)
			case <-time.After(60 * time.Second):
				t.Fatal("the job does not end")
			}
			checkParcels(t, r, lines, mode == understudy.ExactlyOnce)
		})
	}
}

// TestJobIsKilled kills the job's whole process, again and again, while an ingest server is away now and then.
func TestJobIsKilled(t *testing.T) {
	t.Parallel()
	b, r, dir := newBench(t, 2, func(o *ServerOptions) { o.AckTimeout = 500 * time.Millisecond }), newTaker(t), t.TempDir()
	b.ready(0, 1)
	flaky(r)
	fed := make(chan int, 1)
	go func() { fed <- feed(t, b, 3, 150, 10*time.Millisecond) }()
	part := role{Play: "job", Nodes: b.nodes, Receiver: r.server.URL, Dir: dir}
	random := rand.New(rand.NewPCG(4, 4))
	lines, kills := -1, 0
	for lines < 0 {
		p := start(t, part)
		p.says("running")
		select {
		case lines = <-fed:
		case <-time.After(time.Duration(100+random.IntN(400)) * time.Millisecond):
		}
		p.kill()
		kills++
	}
	p := start(t, part)
	p.says("running")
	p.says("done")
	require.NoError(t, p.cmd.Wait())
	t.Logf("%d kills; %d ids came again", kills, r.repeated())
	require.Greater(t, kills, 2)
	checkParcels(t, r, lines, true)
}

// TestJobWaitsForTheReceiver has a receiver that is away for longer than any timeout, and then is back: backpressure reaches whoever posts to
// the ingest server, and nothing is lost.
func TestJobWaitsForTheReceiver(t *testing.T) {
	t.Parallel()
	const requests = 40
	b := newBench(t, 1, nil)
	r, dir := newTaker(t), t.TempDir()
	b.ready(0)
	down := errors.New("down")
	r.behave(func(w http.ResponseWriter, n int) bool { w.WriteHeader(http.StatusServiceUnavailable); return true }, nil)
	waiting := make(chan string, 1000)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := understudy.Run(ctx, drawJob(b.nodes, r.server.URL, filepath.Join(dir, "hook"), func(_ int, why string) { waiting <- why }),
			understudy.Options{StateDir: filepath.Join(dir, "state"), Parallelism: 2})
		ended <- err
	}()
	defer cancel(down)
	lines := feed(t, b, 2, requests, 0)
	select {
	case why := <-waiting:
		require.Contains(t, why, "503")
	case err := <-ended:
		t.Fatalf("the job has ended: %v", err)
	}
	require.Empty(t, r.records(0))
	r.behave(nil, nil)
	require.NoError(t, <-ended)
	checkParcels(t, r, lines, true)
}
