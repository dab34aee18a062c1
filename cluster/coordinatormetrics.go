package cluster

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What a coordinator process measures. All but leader are those of the job and are there on the leader only.
var (
	leads                 = newFamily("leader", "1 on the coordinator that leads.")
	checkpointEpoch       = newFamily("checkpoint_epoch", "The last completed checkpoint.")
	checkpointAge         = newFamily("checkpoint_age_seconds", "Since the last checkpoint was completed.")
	checkpointTook        = newFamily("checkpoint_duration_seconds", "How long the last checkpoint took, from its start to its completion.")
	checkpointSize        = newFamily("checkpoint_bytes", "Bytes of the last checkpoint's images, without the standbys' copies.")
	checkpointCount       = newFamily("checkpoints_total", "Checkpoints completed, as far as this process has seen.")
	workerCount           = newFamily("workers", "Workers that are not dead.", "state")
	unprotectedTasks      = newFamily("unprotected_tasks", "Tasks that have fewer standbys than they should.")
	waitingFor            = newFamily("waiting", "Things that do not go on; status says why.")
	restartedTasks        = newFamily("tasks_restarted_total", "Tasks that were restarted after failures, as far as this process has seen.")
	movedTasks            = newFamily("tasks_moved_total", "Tasks that were handed over without a failure, as far as this process has seen.")
	rollbackCount         = newFamily("rollbacks_total", "Global rollbacks in the job's life.")
	setAsideCount         = newFamily("records_set_aside_total", "Poisoned records that were set aside, as far as this process has seen.")
	recoveringTasks       = newFamily("tasks_recovering", "Tasks that are recovering now.")
	waitingTasks          = newFamily("tasks_without_worker", "Tasks that wait for a worker that has their state.")
	taskIncarnation       = newFamily("task_incarnation", "The life that a task is in.", "task")
	taskRate              = newFamily("task_records_per_second", "Records that a task takes lately.", "task")
	workerHeard           = newFamily("worker_heard_seconds", "Since a worker was heard.", "worker")
	standbyMemoryByWorker = newFamily("worker_standby_memory_bytes", "Bytes of state that a worker holds ready in memory for tasks that it stands by for.", "worker")
	inflightByWorker      = newFamily("worker_inflight_bytes", "Bytes of sent output that a worker keeps.", "worker")
	determinantsTotal     = newFamily("worker_determinant_bytes", "Bytes of determinants that a worker holds.", "worker")
)

// coordinatorMetrics measures a coordinator process. It implements prometheus.Collector.
type coordinatorMetrics struct {
	node     *coordinatorNode
	recovery *prometheus.HistogramVec
}

func newCoordinatorMetrics(n *coordinatorNode) *coordinatorMetrics {
	return &coordinatorMetrics{node: n, recovery: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "understudy_recovery_seconds",
		Help:    "From the time that a failure was noticed to each phase of a task's recovery.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
	}, []string{"phase"})}
}

// observe counts a phase of a recovery that began so long ago; negative: it is not known when.
func (m *coordinatorMetrics) observe(p Phase, after time.Duration) {
	if after >= 0 {
		m.recovery.WithLabelValues(p.String()).Observe(after.Seconds())
	}
}

// Describe describes nothing in advance: what there is depends on who leads.
func (m *coordinatorMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect measures.
func (m *coordinatorMetrics) Collect(ch chan<- prometheus.Metric) {
	m.recovery.Collect(ch)
	var s *Status
	m.node.events.call(func() {
		if m.node.leading && m.node.rep.coord != nil {
			now := m.node.status(time.Now())
			s = &now
		}
	})
	leads.gauge(ch, truth(s != nil))
	if s == nil {
		return
	}
	m.collectJob(ch, s)
	states := map[WorkerState]int{WorkerLive: 0, WorkerSilent: 0, WorkerDraining: 0, WorkerDrained: 0}
	for i := range s.Workers {
		w := &s.Workers[i]
		states[w.State]++
		name := fmt.Sprint(w.Worker)
		workerHeard.gauge(ch, float64(w.HeardMillis)/1000, name)
		inflightByWorker.gauge(ch, float64(w.Metrics.InflightMemory+w.Metrics.InflightDisk), name)
		standbyMemoryByWorker.gauge(ch, float64(w.Metrics.StandbyMemory), name)
		determinantsTotal.gauge(ch, float64(w.Metrics.DeterminantBytes), name)
	}
	for state, count := range states { //lint:sorted each is a measurement by itself
		workerCount.gauge(ch, float64(count), string(state))
	}
}

func (m *coordinatorMetrics) collectJob(ch chan<- prometheus.Metric, s *Status) {
	checkpointEpoch.gauge(ch, float64(s.Checkpoint.Committed))
	if s.Checkpoint.AgeMillis >= 0 {
		checkpointAge.gauge(ch, float64(s.Checkpoint.AgeMillis)/1000)
		checkpointTook.gauge(ch, float64(s.Checkpoint.TookMillis)/1000)
	}
	checkpointSize.gauge(ch, float64(s.Checkpoint.Bytes))
	checkpointCount.counter(ch, float64(s.Summary.Checkpoints))
	unprotectedTasks.gauge(ch, float64(len(s.Checkpoint.Unprotected)))
	waitingFor.gauge(ch, float64(len(s.Waiting)))
	restartedTasks.counter(ch, float64(s.Summary.TasksRestarted))
	movedTasks.counter(ch, float64(s.Summary.TasksMoved))
	rollbackCount.counter(ch, float64(s.Generation))
	setAsideCount.counter(ch, float64(s.Summary.SetAside))
	recovering, homeless := 0, 0
	for i := range s.Tasks {
		t := &s.Tasks[i]
		if t.Recovering {
			recovering++
		}
		if t.Worker == 0 {
			homeless++
		}
		taskIncarnation.gauge(ch, float64(t.Incarnation), t.Name)
		taskRate.gauge(ch, t.Metrics.PerSecond, t.Name)
	}
	recoveringTasks.gauge(ch, float64(recovering))
	waitingTasks.gauge(ch, float64(homeless))
}

// health tells whether the coordinator does what it should: somebody leads, and nothing that it knows of waits.
func (n *coordinatorNode) health() Health {
	h := Health{Role: "coordinator", Why: []string{}}
	if leader, _ := n.raft.Leader(); leader == "" {
		h.Why = append(h.Why, "no coordinator leads")
	}
	n.events.call(func() { h.Why = append(h.Why, n.waiting()...) })
	h.Healthy = len(h.Why) == 0
	return h
}
