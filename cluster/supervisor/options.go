package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
)

// Defaults of Options.
const (
	DefaultWorkers      = 3
	DefaultCoordinators = 1
	DefaultHost         = "127.0.0.1"
)

// Client asks a cluster. *cluster.Client is one.
type Client interface {
	Status(ctx context.Context) (cluster.Status, error)
	Stop(ctx context.Context) (cluster.JobState, error)
	CutLinks(ctx context.Context, w determinant.WorkerID) error
}

// Options are those of Run.
type Options struct {
	Job          string // required
	Cluster      string // default: the job's name
	StateDir     string // required
	Host         string // where the processes listen
	Workers      int
	Coordinators int // 1 or 3, the same for the whole life of the job
	Credentials
	Path    string   // of the program that is started. Default: this one
	Args    []string // its arguments. nil: those of this program
	Call    int      // which call for a job of this name this is, from 0
	Outlive bool     // children go on when this process dies. They write to the file "log" in their directories
	Chaos   *cluster.Chaos
	Logger  *slog.Logger

	// Input, if it is set, tells one input of the job from another. It is asked before a job begins, when nothing was made yet, and again
	// when the job is complete.
	Input func(context.Context) (string, error)
	// Client makes a client of the cluster. Required.
	Client func(s Settings, secret []byte) (Client, error)
	// Status, Progress and Event, if they are set, hear of every status, of what was done so far, a few times per second, and of
	// everything that happens to a process. They must not block.
	Status   func(cluster.Status)
	Progress func(cluster.Progress)
	Event    func(Event)
	// Kill, if it is set, kills a target at once for each value, which may also be the name of a process.
	Kill <-chan cluster.Target
	// Abort, if it is set and closed, kills all processes without a checkpoint.
	Abort <-chan struct{}
}

// Event is something that happened to a process.
type Event struct {
	At      time.Time
	Process string
	PID     int // of the process; 0: it is gone
	What    Happening
	Detail  string
}

// Happening is what happens to processes.
type Happening string

// The happenings.
const (
	Started Happening = "started"
	Killed  Happening = "killed"
	Paused  Happening = "paused"
	Resumed Happening = "resumed"
	Cut     Happening = "links cut"
	Ended   Happening = "ended" // by itself
)

func (o *Options) ensureDefaults() error {
	if o.Cluster == "" {
		o.Cluster = o.Job
	}
	if o.Host == "" {
		o.Host = DefaultHost
	}
	if o.Workers == 0 {
		o.Workers = DefaultWorkers
	}
	if o.Coordinators == 0 {
		o.Coordinators = DefaultCoordinators
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Args == nil {
		o.Args = os.Args[1:]
	}
	var err error
	if o.Path == "" {
		if o.Path, err = os.Executable(); err != nil {
			return fmt.Errorf("supervisor: this program cannot be found to be started again: %w", err)
		}
	}
	for _, path := range []*string{&o.StateDir, &o.SecretFile, &o.CA, &o.Certificate, &o.Key} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("supervisor: %w", err)
		}
	}
	return nil
}

// Validate tells what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.StateDir == "":
		return errors.New("supervisor: processes need a state directory")
	case o.Workers < 0:
		return fmt.Errorf("supervisor: %d workers", o.Workers)
	case o.Coordinators != 0 && o.Coordinators != 1 && o.Coordinators != 3:
		return fmt.Errorf("supervisor: %d coordinators: want 1 or 3", o.Coordinators)
	}
	if o.Chaos != nil {
		if err := o.Chaos.Validate(true); err != nil {
			return err
		}
	}
	return o.Credentials.Validate()
}
