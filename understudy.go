package understudy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// Mode says what a job records, and so what a failure costs.
type Mode = determinant.Mode

// The modes. ExactlyOnce is the default: the standby of a dead task replays its choices, and nothing is seen twice. In
// AtLeastOnce the standby takes over from the last checkpoint and records since then may be seen twice. In GlobalRollback
// every failure puts the whole job back to its last checkpoint.
const (
	ExactlyOnce    = determinant.ExactlyOnce
	AtLeastOnce    = determinant.AtLeastOnce
	GlobalRollback = determinant.GlobalRollback
)

// Summary is what a run did, Progress what it has done so far.
type (
	Summary  = cluster.Summary
	Progress = cluster.Progress
	// Chaos kills tasks or workers at random while the job runs.
	Chaos = cluster.Chaos
	// Poison is a record that user code fails on.
	Poison = task.Poison
)

// ParseChaos reads a form such as "kill=200ms,target=task,limit=10". Chaos has all that it may say.
func ParseChaos(text string) (*Chaos, error) { return cluster.ParseChaos(text) }

// Options are those of Run. The zero value is the default.
type Options struct {
	// Parallelism is how many tasks run an operator that does not say so itself. Default 1.
	Parallelism int
	// Workers is how many workers share the job's tasks: in this process with Run, as processes with RunCluster. For RunCoordinator
	// it is how many must have joined before the job begins. Default 3. A task's standby is on another worker.
	Workers int
	// Mode says what a failure costs. A job that ran in another mode, or at another sharing depth, goes on as it was and changes
	// with its next checkpoint.
	Mode Mode
	// SharingDepth is how many hops downstream determinants are handed on: 0 means full, which survives the death of any set
	// of tasks; less costs less and rolls back when too many neighbours die at once. AutoDepth chooses the least depth that
	// covers the loss of any one worker.
	SharingDepth int
	AutoDepth    bool
	// Standbys per task. 0 means one, a negative number none.
	Standbys int
	// CheckpointInterval is the time between checkpoints. Default 1 s.
	CheckpointInterval time.Duration
	// StateDir keeps the job's metadata and checkpoints. A job that is run again with the same directory goes on where it
	// stopped or was killed. Empty: nothing outlives the process.
	StateDir string
	// InflightMemory and InflightDisk bound, per worker, the output that is kept for replay, in bytes: beyond the first it
	// spills to StateDir, beyond both sources wait. Defaults 256 MiB and 4 GiB.
	InflightMemory, InflightDisk int64
	// StandbyMemory bounds, per worker, the state that it holds ready in memory for tasks that it stands by for, in bytes. A task takes over
	// what is held ready at once, however large it is; other state is read from StateDir first. Held ready is state of half a MiB and more
	// of which at most an eighth changes from checkpoint to checkpoint. 0 means 512 MiB, a negative number none.
	StandbyMemory int64
	// PoisonTries is how often user code may fail on the same record before the policy applies: with a DeadLetter the record
	// is handed to it and set aside, without one the job stops. Default 3.
	PoisonTries int
	DeadLetter  func(Poison) error
	Logger      *slog.Logger   // default: nothing is logged
	Progress    func(Progress) // called a few times per second
	Chaos       *Chaos
	// Settings are what must be alike in all processes of a job beside the program and this job's graph, by name, such as a flag for where its
	// output goes. A worker that was given others than the coordinator is refused by the name of what differs; no value leaves its process.
	Settings map[string]string
	// HeartbeatTimeout is how long a worker process may be silent before it is declared dead. Default 2 s. A process whose
	// connection is closed is noticed at once.
	HeartbeatTimeout time.Duration
	Processes        Processes // of RunCluster
}

// Validate tells what is wrong with the options of Run.
func (o *Options) Validate() error { return o.validate(false) }

// ValidateCluster tells what is wrong with the options of RunCluster, RunCoordinator and RunWorker.
func (o *Options) ValidateCluster() error { return o.validate(true) }

// validate tells what is wrong with the options of a job that runs in this process, or on processes.
func (o *Options) validate(processes bool) error {
	switch {
	case o.Parallelism < 0:
		return fmt.Errorf("understudy: parallelism %d is negative", o.Parallelism)
	case o.Workers < 0:
		return fmt.Errorf("understudy: %d workers", o.Workers)
	case o.SharingDepth < 0 || o.SharingDepth >= int(determinant.Full):
		return fmt.Errorf("understudy: sharing depth %d: want 0 for full, or 1 to %d", o.SharingDepth, determinant.Full-1)
	case o.HeartbeatTimeout != 0 && o.HeartbeatTimeout < 20*time.Millisecond:
		return fmt.Errorf("understudy: heartbeat timeout %v is below 20 ms", o.HeartbeatTimeout)
	case o.CheckpointInterval < 0:
		return fmt.Errorf("understudy: checkpoint interval %v is negative", o.CheckpointInterval)
	case o.CheckpointInterval > 0 && o.CheckpointInterval < time.Millisecond:
		return fmt.Errorf("understudy: checkpoint interval %v is below 1 ms", o.CheckpointInterval)
	case o.InflightMemory < 0 || o.InflightDisk < 0:
		return errors.New("understudy: a budget is negative")
	case o.Mode > GlobalRollback:
		return fmt.Errorf("understudy: mode %v is not for use", o.Mode)
	}
	if processes && o.StateDir == "" {
		return errors.New("understudy: processes need a state directory")
	}
	if o.Chaos != nil {
		if err := o.Chaos.Validate(processes); err != nil {
			return err
		}
	}
	return o.Processes.validate()
}

// Run runs a job in this process until all its input is processed, it fails, or ctx ends; then the error is that of ctx. The
// summary is good in every case.
func Run(ctx context.Context, job *operator.Job, o Options) (Summary, error) {
	if err := o.Validate(); err != nil {
		return Summary{}, err
	}
	plan, err := job.Plan(max(1, o.Parallelism))
	if err != nil {
		return Summary{}, err
	}
	if s, err := supervisor.ReadSettings(o.StateDir); o.StateDir != "" && err == nil {
		return Summary{}, fmt.Errorf("%w: job %q runs on several processes there", cluster.ErrWrongJob, s.Job)
	}
	warnOfRepeats(plan, &o)
	return cluster.RunLocal(ctx, plan, cluster.LocalOptions{
		Workers: o.Workers, Mode: o.Mode, Depth: o.depth(), Auto: o.AutoDepth, Standbys: o.Standbys,
		CheckpointInterval: o.CheckpointInterval, StateDir: o.StateDir,
		InflightMemory: o.InflightMemory, InflightDisk: o.InflightDisk, StandbyMemory: o.StandbyMemory,
		PoisonTries: o.PoisonTries, DeadLetter: o.DeadLetter, Logger: o.Logger, Progress: o.Progress, Chaos: o.Chaos,
		Mutations: mutation.FromContext(ctx),
	})
}
