package cluster

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/transport"
)

// What a worker process measures. Counters of tasks go on over their lives; those of links and fences begin with the process.
var (
	taskRecords      = newFamily("task_records_total", "Records that a task has taken since the job's start.", "task")
	taskWritten      = newFamily("sink_records_total", "Records of a task that are visible in its sink since the job's start.", "task")
	taskLog          = newFamily("task_determinant_bytes_total", "Bytes of determinants that a task has recorded since the job's start.", "task")
	taskBackpressure = newFamily("task_backpressured", "1 while a task waits for a consumer to take its output.", "task")
	taskBusy         = newFamily("task_step_seconds", "How long the present step of a task has taken; user code that hangs shows here.", "task")
	taskWaiting      = newFamily("task_waiting", "1 while a task's source or sink says that it waits for its external system; status says why.", "task")
	taskReplaying    = newFamily("task_replaying", "1 while a task replays what its former life chose.", "task")
	heldLog          = newFamily("determinant_held_bytes", "Bytes that this worker holds of a task's determinants; sum over workers counts its holders.", "task")
	inflightBytes    = newFamily("inflight_bytes", "Bytes of sent output that are kept for replay.", "where")
	standbyLag       = newFamily("standby_lag_epochs", "Checkpoints that this worker, as a task's standby, is behind the committed one.", "task")
	stateBytes       = newFamily("state_bytes", "Bytes on disk of the committed state that this worker holds.")
	refusedCount     = newFamily("fenced_total", "What was refused because its sender, life, subscription or generation is dead: messages, frames, connections, and this worker's own writes to sinks.", "what")
	livesLost        = newFamily("worker_lives_lost_total", "How often this process was declared dead while it lived, dropped everything and began anew.")
	suppressedCount  = newFamily("duplicates_suppressed_total", "Elements that replays made again and that were not sent again.")
	linkBytes        = newFamily("link_bytes_total", "Bytes on the data stream with a peer.", "peer", "direction")
	linkFrames       = newFamily("link_frames_total", "Batches on the data stream with a peer.", "peer", "direction")
	linkConnects     = newFamily("link_connects_total", "Attempts to make a connection with a peer.", "peer", "result")
	linksDown        = newFamily("links_down", "Links to live peers that are down.")
	backlogBytes     = newFamily("shipping_backlog_bytes", "Bytes of control messages and checkpoint images that a peer has not taken yet.", "peer")
	workerID         = newFamily("worker_id", "Id of this worker's present life.")
)

// workerMetrics measures a worker process over all its lives. It implements prometheus.Collector.
type workerMetrics struct {
	node       *workerNode
	barrier    prometheus.Histogram
	suppressed atomic.Uint64
	refused    refusals // over all lives
	lost       atomic.Uint64
	mu         struct {
		sync.Mutex
		links map[determinant.WorkerID]*linkCounts
	}
}

type linkCounts struct {
	sentBytes, sentFrames, gotBytes, gotFrames, connects, failures uint64
}

func newWorkerMetrics(n *workerNode) *workerMetrics {
	m := &workerMetrics{node: n, barrier: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "understudy_barrier_latency_seconds",
		Help:    "From the start of a checkpoint to its barrier's arrival at a task: how long a record takes to get there.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
	})}
	m.mu.links = map[determinant.WorkerID]*linkCounts{}
	return m
}

// observe counts what is not a phase of a recovery; false if it is one.
func (m *workerMetrics) observe(o Observation) bool {
	switch o.Phase {
	case Written: // counted by the sink itself
	case Aligned:
		m.barrier.Observe(float64(o.Elements) / 1000)
	default:
		if o.Phase == Suppressed {
			m.suppressed.Add(o.Elements)
		}
		return false
	}
	return true
}

// hooks are called by the links.
func (m *workerMetrics) hooks() transport.MeshHooks {
	return transport.MeshHooks{
		Sent: func(peer determinant.WorkerID, frames, bytes int) {
			m.link(peer, func(c *linkCounts) {
				c.sentFrames, c.sentBytes = c.sentFrames+uint64(frames), c.sentBytes+uint64(bytes)
			})
		},
		Received: func(peer determinant.WorkerID, frames, bytes int) {
			m.link(peer, func(c *linkCounts) { c.gotFrames, c.gotBytes = c.gotFrames+uint64(frames), c.gotBytes+uint64(bytes) })
		},
		Connect: func(peer determinant.WorkerID, err error) {
			m.link(peer, func(c *linkCounts) {
				if err != nil {
					c.failures++
				} else {
					c.connects++
				}
			})
		},
	}
}

// turnedAway counts a connection of a worker that is dead.
func (m *workerMetrics) turnedAway() { m.refused.connections.Add(1) }

// collectRefusals measures what was fenced off.
func (m *workerMetrics) collectRefusals(ch chan<- prometheus.Metric) {
	refusedCount.counter(ch, float64(m.refused.messages.Load()), "message")
	refusedCount.counter(ch, float64(m.refused.frames.Load()), "frame")
	refusedCount.counter(ch, float64(m.refused.writes.Load()), "write")
	refusedCount.counter(ch, float64(m.refused.connections.Load()), "connection")
	livesLost.counter(ch, float64(m.lost.Load()))
}

func (m *workerMetrics) link(peer determinant.WorkerID, count func(*linkCounts)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.mu.links[peer]
	if c == nil {
		c = &linkCounts{}
		m.mu.links[peer] = c
	}
	count(c)
}

// Describe describes nothing in advance: what there is depends on the tasks that are here.
func (m *workerMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect measures.
func (m *workerMetrics) Collect(ch chan<- prometheus.Metric) {
	m.barrier.Collect(ch)
	suppressedCount.counter(ch, float64(m.suppressed.Load()))
	m.collectRefusals(ch)
	l := m.node.life.Load()
	if l == nil {
		return
	}
	w := l.worker
	workerID.gauge(ch, float64(w.ID()))
	memory, disk := w.opts.Budget.Used()
	inflightBytes.gauge(ch, float64(memory), "memory")
	inflightBytes.gauge(ch, float64(disk), "disk")
	stateBytes.gauge(ch, float64(w.opts.State.DiskBytes()))
	linksDown.gauge(ch, float64(l.downs.count()))
	m.collectTasks(ch, w)
	m.collectLinks(ch, l)
}

func (m *workerMetrics) collectTasks(ch chan<- prometheus.Metric, w *Worker) {
	for _, t := range w.Measure() {
		name := nameOf(w.job, t.Task)
		taskRecords.counter(ch, float64(t.Records), name)
		taskLog.counter(ch, float64(t.Log), name)
		taskBackpressure.gauge(ch, truth(t.Backpressure), name)
		taskReplaying.gauge(ch, truth(t.Replaying), name)
		taskWaiting.gauge(ch, truth(t.Waiting != ""), name)
		taskBusy.gauge(ch, (time.Duration(t.BusyMillis) * time.Millisecond).Seconds(), name)
		if w.job.Tasks[t.Task].External {
			taskWritten.counter(ch, float64(t.Written), name)
		}
	}
	for t := range w.job.Tasks {
		if held := w.Logs().Log(determinant.TaskID(t)).Bytes(); held > 0 || w.Task(determinant.TaskID(t)) != nil {
			heldLog.gauge(ch, float64(held), nameOf(w.job, determinant.TaskID(t)))
		}
	}
	for t, lag := range w.StandbyLags() { //lint:sorted each is a measurement by itself
		standbyLag.gauge(ch, float64(lag), nameOf(w.job, t))
	}
}

func (m *workerMetrics) collectLinks(ch chan<- prometheus.Metric, l *life) {
	for _, p := range l.peers() {
		name := fmt.Sprint(p.ID)
		backlogBytes.gauge(ch, float64(l.mesh.Backlog(p.ID, true)+l.mesh.Backlog(p.ID, false)), name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for peer, c := range m.mu.links { //lint:sorted each is a measurement by itself
		name := fmt.Sprint(peer)
		linkBytes.counter(ch, float64(c.sentBytes), name, "sent")
		linkBytes.counter(ch, float64(c.gotBytes), name, "received")
		linkFrames.counter(ch, float64(c.sentFrames), name, "sent")
		linkFrames.counter(ch, float64(c.gotFrames), name, "received")
		linkConnects.counter(ch, float64(c.connects), name, "made")
		linkConnects.counter(ch, float64(c.failures), name, "failed")
	}
}

func nameOf(job *Job, t determinant.TaskID) string {
	info := job.Tasks[t].Info
	return taskName(info.Vertex, info.Index)
}

// health tells whether the worker does what it should: it has joined, and its links are up.
func (n *workerNode) health() Health {
	h := Health{Role: "worker", Why: []string{}}
	l := n.life.Load()
	switch {
	case l == nil:
		h.Why = append(h.Why, "it has not joined a cluster")
	case l.session.Load() == nil:
		h.Why = append(h.Why, "no coordinator leads, or it cannot be reached")
	}
	if l != nil {
		if down := l.downs.count(); down > 0 {
			h.Why = append(h.Why, fmt.Sprintf("%d links to other workers are down", down))
		}
		if why := l.full.why(); why != "" {
			h.Why = append(h.Why, why)
		}
	}
	h.Healthy = len(h.Why) == 0
	return h
}
