package cluster

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/raftmeta"
	"github.com/understudy-stream/understudy/transport"
)

// runs runs a process that should end by itself, with an error.
func (c *cell) runs(run func(ctx context.Context) error) error {
	c.t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 30*time.Second, errors.New("it did not end by itself"))
	defer cancel()
	return run(ctx)
}

// otherPlan is another job, of two tasks for each degree of parallelism.
func otherPlan(t *testing.T, parallelism int) *operator.Plan {
	t.Helper()
	job := operator.NewJob("other")
	all := operator.From(job, "numbers", operator.Source[uint64](numbers{splits: 2, n: 5}))
	operator.To(operator.Rebalanced(all), "output", gatedSink{}, operator.WithCodec(operator.JSON[uint64]()))
	plan, err := job.Plan(parallelism)
	require.NoError(t, err)
	return plan
}

// Whoever does not belong to the cluster is told so and ends; the cluster does not notice.
func TestStrangersAreRefused(t *testing.T) {
	c := newCell(t, 1, 2, 3000)
	c.start()
	c.valve.open(1000)
	c.await("the first output", written(1))
	base := WorkerNodeOptions{NodeOptions: c.node("stranger")}
	plan := drawnPlan(t, c.valve, c.out)

	secret := base
	secret.Security.Secret = []byte("the secret of another cluster")
	require.ErrorIs(t, c.runs(func(ctx context.Context) error { return RunWorker(ctx, plan, secret) }), transport.ErrSecret)
	_, err := NewClient("test", c.addrs, secret.Security).Stop(context.Background())
	require.ErrorIs(t, err, transport.ErrSecret)

	cluster := base
	cluster.Cluster = "another"
	err = c.runs(func(ctx context.Context) error { return RunWorker(ctx, plan, cluster) })
	require.ErrorIs(t, err, transport.ErrRefused)
	require.ErrorContains(t, err, `it is "test", not "another"`)

	build := base
	build.Build = "another"
	require.ErrorIs(t, c.runs(func(ctx context.Context) error { return RunWorker(ctx, plan, build) }), ErrOtherBuild)

	err = c.runs(func(ctx context.Context) error { return RunWorker(ctx, otherPlan(t, 1), base) })
	require.ErrorIs(t, err, ErrWrongJob)
	require.ErrorContains(t, err, `the cluster has [job "drawn"] where this worker has [job "other"]`)

	settings := base
	settings.Settings = Settings{"--rate": "1000", "--output": "somewhere", "--window": ""}
	err = c.runs(func(ctx context.Context) error { return RunWorker(ctx, plan, settings) })
	require.ErrorIs(t, err, ErrWrongJob)
	require.ErrorContains(t, err, "the coordinator at "+c.addrs[0]+" were not given the same --output, --rate")

	require.ErrorContains(t, c.client.Drain(context.Background(), 99), "no such worker")

	c.valve.open(c.valve.n)
	require.Zero(t, c.finished().Generation)
	requireExact(t, c.out, 6000)
}

// A directory belongs to one cluster, and to one run of its job.
func TestDirectoriesOfOthersAreRefused(t *testing.T) {
	c := newCell(t, 1, 1, 100)
	c.start()
	c.valve.open(50)
	c.await("the first output", written(1))
	c.stop()

	co := CoordinatorNodeOptions{NodeOptions: c.node("coordinator-0")}
	co.Listen, co.Cluster = c.addrs[0], "another"
	plan := drawnPlan(t, c.valve, c.out)
	require.ErrorIs(t, c.runs(func(ctx context.Context) error { return RunCoordinator(ctx, plan, co) }), raftmeta.ErrOtherCluster)
	co.Cluster = "test"
	for _, parallelism := range []int{1, 20} { // fewer tasks than the ledger tells of, and more
		err := c.runs(func(ctx context.Context) error { return RunCoordinator(ctx, otherPlan(t, parallelism), co) })
		require.ErrorIs(t, err, ErrWrongJob)
		require.ErrorContains(t, err, co.StateDir)
	}

	other := newCell(t, 1, 1, 100)
	other.startCoordinator(0)
	w := WorkerNodeOptions{NodeOptions: other.node("unused")}
	w.StateDir = filepath.Join(c.dir, "worker-0")
	plan = drawnPlan(t, other.valve, other.out)
	require.ErrorIs(t, other.runs(func(ctx context.Context) error { return RunWorker(ctx, plan, w) }), checkpoint.ErrWrongJob)

	c.start() // nothing was overwritten
	c.valve.open(c.valve.n)
	c.finished()
	requireExact(t, c.out, 200)
}

func TestWhereGraphsDiffer(t *testing.T) {
	three, four := otherPlan(t, 3), otherPlan(t, 4)
	require.Contains(t, otherGraph("it", three.Shape, "this", four.Shape), "it has [vertex 0 x3] where this has [vertex 0 x4] (")
	require.Contains(t, otherGraph("it", "a\nb\n", "this", "a\n"), "it has [b] where this has [nothing more] (")
}

func TestWhichSettingsDiffer(t *testing.T) {
	prints := func(s Settings) map[string]string { return s.fingerprints([]byte("a secret")) }
	require.NotEqual(t, prints(Settings{"a": "1"}), Settings{"a": "1"}.fingerprints([]byte("another")))
	mine := prints(Settings{"a": "1", "b": "2", "c": "", "d": "4"})
	require.Empty(t, differing(mine, prints(Settings{"a": "1", "b": "2", "d": "4", "e": ""})))
	require.Equal(t, []string{"a", "b", "e"}, differing(mine, prints(Settings{"b": "3", "d": "4", "e": "5"})))
	require.Empty(t, differing(nil, prints(nil)))
}

// A replica does nothing with the ledger of another job, which may have more tasks or fewer, and above all it makes no snapshot of it.
func TestAReplicaOfAnotherJobRefuses(t *testing.T) {
	newReplica := func(parallelism int) (*replica, command) {
		job, err := Layout(otherPlan(t, parallelism))
		require.NoError(t, err)
		s := newLedgerState(job, "run", make([][]string, len(job.Plan.Vertices)), determinant.ExactlyOnce, determinant.Full)
		return &replica{job: job, world: nowhere{}, prop: &office{}, begun: func(*ledgerState) {}}, command{Begin: &s}
	}
	owner, begin := newReplica(3)
	require.NoError(t, owner.apply(encode(&begin)))
	image, err := owner.snapshot()
	require.NoError(t, err)
	for _, parallelism := range []int{1, 20} {
		r, own := newReplica(parallelism)
		require.ErrorIs(t, r.apply(encode(&begin)), ErrWrongJob)
		require.ErrorIs(t, r.apply(encode(&own)), ErrWrongJob, "it is not begun on top")
		_, err := r.snapshot()
		require.ErrorIs(t, err, ErrWrongJob)
		require.Nil(t, r.coord)

		r, _ = newReplica(parallelism)
		require.ErrorIs(t, r.restore(image), ErrWrongJob)
		_, err = r.snapshot()
		require.ErrorIs(t, err, ErrWrongJob)
	}
}

// A port that somebody else has is an error at once.
func TestPortsInUse(t *testing.T) {
	c := newCell(t, 1, 1, 100)
	l, err := net.Listen("tcp", c.addrs[0])
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	plan := drawnPlan(t, c.valve, c.out)
	co := CoordinatorNodeOptions{NodeOptions: c.node("coordinator-0")}
	co.Listen = c.addrs[0]
	require.ErrorIs(t, c.runs(func(ctx context.Context) error { return RunCoordinator(ctx, plan, co) }), syscall.EADDRINUSE)
	w := WorkerNodeOptions{NodeOptions: c.node("worker-0")}
	w.Listen = c.addrs[0]
	require.ErrorIs(t, c.runs(func(ctx context.Context) error { return RunWorker(ctx, plan, w) }), syscall.EADDRINUSE)
}

// Without a majority of coordinators nothing is decided, and whoever asks is told so; the data plane goes on, and so does the
// rest when they come back.
func TestTheMajorityIsGone(t *testing.T) {
	c := newCell(t, 3, 2, 3000)
	c.start()
	c.valve.open(100)
	c.await("the first output", written(1))
	c.coords[0].kill()
	c.coords[1].kill()
	deadline := time.Now().Add(30 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := c.client.Status(ctx)
		cancel()
		if err != nil {
			require.ErrorIs(t, err, ErrNoLeader)
			break
		}
		require.True(t, time.Now().Before(deadline), "the one that is left still leads") // it takes a moment to notice
	}
	c.valve.open(1000)
	// Not told by any coordinator. One of the sources may have been told of a checkpoint by the last leader and the other not; then half of what
	// comes waits for the next leader.
	for countLines(t, c.out) < 1000 {
		require.True(t, time.Now().Before(deadline), "the data plane stands still without coordinators")
	}
	c.startCoordinator(0)
	c.startCoordinator(1)
	c.valve.open(c.valve.n)
	require.Zero(t, c.finished().Generation)
	requireExact(t, c.out, 6000)
}
