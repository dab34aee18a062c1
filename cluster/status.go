package cluster

import "github.com/understudy-stream/understudy/determinant"

// JobState is where a job is in its life.
type JobState string

// The states of a job, in order.
const (
	JobForming  JobState = "waiting for workers" // never deployed yet
	JobRunning  JobState = "running"
	JobStopping JobState = "stopping" // told to stop; it can go on later
	JobFinished JobState = "finished"
	JobFailed   JobState = "failed"
)

// Status is what a coordinator leader knows of its job and its workers.
type Status struct {
	Cluster      string              `json:"cluster"`
	Job          string              `json:"job"`
	Run          string              `json:"run"`
	State        JobState            `json:"state"`
	Err          string              `json:"error,omitempty"`
	Waiting      []string            `json:"waiting"` // why something does not go on
	Coordinators []CoordinatorStatus `json:"coordinators"`
	Mode         string              `json:"mode"`        // of the epochs that are open now
	ModeWanted   string              `json:"mode_wanted"` // asked for, from the next epoch on; equal to Mode when there is no change to come
	Depth        string              `json:"sharing_depth"`
	Generation   uint64              `json:"generation"` // global rollbacks so far
	Checkpoint   CheckpointStatus    `json:"checkpoint"`
	Workers      []WorkerStatus      `json:"workers"`
	Tasks        []TaskStatus        `json:"tasks"`
	Summary      Summary             `json:"summary"` // since this coordinator began to follow the ledger
}

// CoordinatorStatus is one coordinator process.
type CoordinatorStatus struct {
	Address string `json:"address"`
	Leader  bool   `json:"leader"`
}

// CheckpointStatus is the last completed checkpoint and the one under way.
type CheckpointStatus struct {
	Committed    determinant.Epoch `json:"committed"`
	AgeMillis    int64             `json:"age_ms"`      // since the last one was completed; -1: none yet
	TookMillis   int64             `json:"took_ms"`     // the last one, from its start to its completion; -1: none yet
	Bytes        int64             `json:"bytes"`       // of the images of the last one, primaries only
	UnderWay     determinant.Epoch `json:"under_way"`   // 0: none
	MissingTasks []string          `json:"missing"`     // who has not acknowledged the one under way
	Unprotected  []string          `json:"unprotected"` // tasks without a standby
}

// WorkerState is what a coordinator thinks of a worker.
type WorkerState string

// The states of a worker.
const (
	WorkerLive     WorkerState = "live"
	WorkerSilent   WorkerState = "silent" // its connection is gone, and it is not known to be dead
	WorkerDraining WorkerState = "draining"
	WorkerDrained  WorkerState = "drained"
	WorkerEnded    WorkerState = "ended" // the job is over, and so is its process
)

// WorkerStatus is one worker that is not dead.
type WorkerStatus struct {
	Worker      determinant.WorkerID `json:"worker"`
	Address     string               `json:"address"`
	Process     int                  `json:"pid"`
	Host        string               `json:"host"`
	State       WorkerState          `json:"state"`
	HeardMillis int64                `json:"heard_ms"` // since it was heard last
	Tasks       int                  `json:"tasks"`
	Standbys    int                  `json:"standbys"`
	Metrics     WorkerMetrics        `json:"metrics"`
}

// WorkerMetrics is what a worker says of itself with its heartbeats.
type WorkerMetrics struct {
	InflightMemory   int64 `json:"inflight_memory_bytes"`
	InflightDisk     int64 `json:"inflight_disk_bytes"`
	DeterminantBytes int64 `json:"determinant_bytes"` // held of all tasks' logs
	LinksDown        int   `json:"links_down"`
	StateBytes       int64 `json:"state_bytes"`          // of the committed state on its disk
	StandbyMemory    int64 `json:"standby_memory_bytes"` // of state that it holds ready for tasks that it stands by for
}

// TaskStatus is one task. What was measured of it last stays when its worker is not there any more.
type TaskStatus struct {
	Task        determinant.TaskID      `json:"task"`
	Name        string                  `json:"name"`
	Worker      determinant.WorkerID    `json:"worker"` // 0: it waits for one
	Incarnation determinant.Incarnation `json:"incarnation"`
	Recovering  bool                    `json:"recovering"`
	Standbys    []StandbyStatus         `json:"standbys"`
	Metrics     TaskMetrics             `json:"metrics"`
}

// StandbyStatus is one standby of a task.
type StandbyStatus struct {
	Worker determinant.WorkerID `json:"worker"`
	Epoch  determinant.Epoch    `json:"epoch"` // committed checkpoint that it holds
	Ready  bool                 `json:"ready"` // it holds the newest
}

// TaskMetrics is what a worker says of one of its tasks with its heartbeats.
type TaskMetrics struct {
	Task         determinant.TaskID      `json:"-"`
	Incarnation  determinant.Incarnation `json:"-"`
	Records      uint64                  `json:"records"`            // taken since the job's start
	PerSecond    float64                 `json:"records_per_second"` // lately; computed by the coordinator
	Log          uint64                  `json:"log_bytes"`          // of its own determinants since the job's start
	Backpressure bool                    `json:"backpressure"`       // it waits for a consumer
	BusyMillis   int64                   `json:"busy_ms"`            // how long its present step has taken; user code that hangs shows here
	Replaying    bool                    `json:"replaying"`
	Source       bool                    `json:"source"`
	Written      uint64                  `json:"written"` // records visible in its sink since the job's start
	Waiting      string                  `json:"waiting"` // why its source or sink waits, mostly for an external system; empty if neither does
	// EventTime is how far a source with MaxDrift is, in milliseconds; absent if no other need wait for it.
	EventTime *int64 `json:"event_time_ms,omitempty"`
}
