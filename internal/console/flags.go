package console

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/determinant"
)

// DefaultParallelism is that of commands.
const DefaultParallelism = 2

// Engine are the flags that say how a job is run.
type Engine struct {
	Parallelism      int
	Mode             determinant.Mode
	Interval         time.Duration
	Standbys         int
	Depth            int // 0: full
	AutoDepth        bool
	HeartbeatTimeout time.Duration
	Verbose          bool
	ModeName         string // as Mode was given; Check reads it
	DepthName        string // as Depth and AutoDepth were
}

// NewEngine returns the defaults.
func NewEngine() Engine {
	return Engine{
		Parallelism: DefaultParallelism, ModeName: determinant.ExactlyOnce.String(), Interval: cluster.DefaultCheckpointInterval, Standbys: 1,
		DepthName: "full", HeartbeatTimeout: cluster.DefaultHeartbeatTimeout,
	}
}

// Register adds all flags, whose defaults are the present values.
func (e *Engine) Register(fs *flag.FlagSet) {
	e.RegisterJob(fs)
	fs.StringVar(&e.ModeName, "mode", e.ModeName, "exactly-once, at-least-once or global-rollback")
	fs.DurationVar(&e.Interval, "checkpoint-interval", e.Interval, "time between checkpoints")
	fs.IntVar(&e.Standbys, "standbys", e.Standbys, "standbys per task")
	fs.StringVar(&e.DepthName, "sharing-depth", e.DepthName, "hops that determinants are handed on: auto, full or a number")
}

// RegisterJob adds the flags that a worker has too. The others are the coordinators' affair.
func (e *Engine) RegisterJob(fs *flag.FlagSet) {
	fs.IntVar(&e.Parallelism, "parallelism", e.Parallelism, "tasks per operator; the same for the whole life of a job")
	fs.BoolVar(&e.Verbose, "verbose", e.Verbose, "log what the engine does to standard error")
}

// StandbysOption is the number of standbys in the terms of an embedding program, where 0 means the default and none is negative.
func (e *Engine) StandbysOption() int {
	if e.Standbys == 0 {
		return -1
	}
	return e.Standbys
}

// WarningLogger is what a process of a cluster that somebody started by hand logs to if not asked for more: what should not go unseen,
// such as that no coordinator answers.
func WarningLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// RegisterHeartbeat adds the flag that only processes have.
func (e *Engine) RegisterHeartbeat(fs *flag.FlagSet) {
	fs.DurationVar(&e.HeartbeatTimeout, "heartbeat-timeout", e.HeartbeatTimeout, "silence after which a worker process is declared dead; the same for all processes")
}

// Check tells what is wrong with the flags, after they were read.
func (e *Engine) Check() error {
	var err error
	if e.Mode, err = determinant.ParseMode(e.ModeName); err != nil {
		return fmt.Errorf("--mode: %w", err)
	}
	switch {
	case e.Parallelism < 1:
		return fmt.Errorf("--parallelism %d: want at least 1", e.Parallelism)
	case e.Standbys < 0:
		return fmt.Errorf("--standbys %d: want 0 or more", e.Standbys)
	}
	switch e.DepthName {
	case "auto":
		e.AutoDepth = true
	case "full":
	default:
		if e.Depth, err = strconv.Atoi(e.DepthName); err != nil || e.Depth < 1 {
			return fmt.Errorf("--sharing-depth %q: want auto, full or a number from 1", e.DepthName)
		}
	}
	if e.DepthName != "full" && e.Mode != determinant.ExactlyOnce {
		return fmt.Errorf("--sharing-depth has no effect in mode %v, which records nothing to share", e.Mode)
	}
	return nil
}

// SecretVariable is the environment variable that may hold the cluster's secret.
const SecretVariable = supervisor.SecretVariable

// Secrets are the flags by which the processes of a cluster know each other.
type Secrets struct {
	supervisor.Credentials
}

// Register adds the flags.
func (s *Secrets) Register(fs *flag.FlagSet) {
	fs.StringVar(&s.SecretFile, "secret-file", "", "`FILE` with the cluster's secret (or the variable "+SecretVariable+")")
	fs.StringVar(&s.CA, "tls-ca", "", "`FILE` with the authority that signs the certificates of all processes")
	fs.StringVar(&s.Certificate, "tls-cert", "", "`FILE` with this process's certificate")
	fs.StringVar(&s.Key, "tls-key", "", "`FILE` with the key of the certificate")
}

// Check takes the secret from the environment if no file was named, and looks whether files that were named can be used.
func (s *Secrets) Check() error {
	if text := strings.TrimSpace(os.Getenv(SecretVariable)); text != "" && s.SecretFile == "" {
		s.Secret = []byte(text)
	}
	if !s.Given() {
		return s.Validate()
	}
	_, err := s.Security()
	return err
}

// Given reports whether any flag was set.
func (s *Secrets) Given() bool {
	return s.SecretFile != "" || s.CA != "" || s.Certificate != "" || s.Key != ""
}

// Node are the flags of a process that is started by hand.
type Node struct {
	Secrets
	Cluster      string
	Coordinators []string
	Listen       string
	Advertise    string
	Inspect      string
	StateDir     string
	coordinators string
}

// Register adds the flags. name is the default of the cluster's name.
func (n *Node) Register(fs *flag.FlagSet, name string) {
	n.Secrets.Register(fs)
	fs.StringVar(&n.Cluster, "cluster", name, "name of the cluster, the same in all its processes")
	fs.StringVar(&n.coordinators, "coordinators", "", "`HOST:PORT,...` of all coordinators, in the same order everywhere (required)")
	fs.StringVar(&n.Listen, "listen", supervisor.DefaultHost+":0", "`HOST:PORT` to listen on; port 0: one that the system chooses")
	fs.StringVar(&n.Advertise, "advertise", "", "`HOST:PORT` where the others reach this process (default: where it listens)")
	fs.StringVar(&n.Inspect, "inspect", supervisor.DefaultHost+":0", "`HOST:PORT` where metrics, health and profiles are served, without a secret; off: nowhere")
	fs.StringVar(&n.StateDir, "state", "", "state `DIR` of this process alone (required)")
}

// Check tells what is wrong with the flags, after they were read.
func (n *Node) Check() error {
	n.Coordinators = addresses(n.coordinators)
	switch {
	case len(n.Coordinators) == 0:
		return errors.New("--coordinators is required: HOST:PORT of each, with commas between")
	case n.StateDir == "":
		return errors.New("--state is required")
	}
	if err := cluster.ValidateCoordinators(n.Coordinators); err != nil {
		return fmt.Errorf("--coordinators: %w", err)
	}
	if err := n.Secrets.Check(); err != nil {
		return err
	}
	return n.known()
}

func (s *Secrets) known() error {
	if len(s.Secret) == 0 && !s.Given() {
		return errors.New("a cluster needs a secret that all its processes share, or TLS: --secret-file FILE, the variable " +
			SecretVariable + ", or --tls-ca, --tls-cert and --tls-key")
	}
	return nil
}

// addresses splits a list at its commas.
func addresses(list string) []string {
	var out []string
	for a := range strings.SplitSeq(list, ",") {
		if a = strings.TrimSpace(a); a != "" {
			out = append(out, a)
		}
	}
	return out
}

// Reach are the flags by which a command finds a cluster.
type Reach struct {
	Secrets
	cluster      string
	coordinators string
	stateDir     string
	JSON         bool
	Fallback     string // state directory that is looked at if no flag says where the cluster is
	finished     bool   // a job that ran on the state directory is done
	format       string
	timeout      time.Duration
}

// Register adds the flags. name is the default of the cluster's name, format the name of the flag for what is printed.
func (r *Reach) Register(fs *flag.FlagSet, name, format string) {
	r.Secrets.Register(fs)
	fs.StringVar(&r.cluster, "cluster", name, "name of the cluster")
	fs.StringVar(&r.coordinators, "coordinators", "", "`HOST:PORT,...` of the coordinators")
	fs.StringVar(&r.stateDir, "state", "", "state `DIR` of a cluster on this machine, which says all the rest")
	fs.StringVar(&r.format, format, "text", "what is printed: text or json")
	fs.DurationVar(&r.timeout, "timeout", 0, "how long to wait for an answer (default: 5s, where something must happen first 1m)")
}

// client finds the cluster.
func (r *Reach) client() (*cluster.Client, error) {
	if r.format != "text" && r.format != "json" {
		return nil, usage("-o %q: want text or json", r.format)
	}
	r.JSON = r.format == "json"
	if r.timeout < 0 {
		return nil, usage("--timeout %v is negative", r.timeout)
	}
	name, coordinators := r.cluster, addresses(r.coordinators)
	if len(coordinators) == 0 && r.stateDir == "" {
		r.stateDir = r.Fallback
	}
	switch {
	case r.stateDir != "" && (len(coordinators) > 0 || r.Given()):
		return nil, usage("--state says where the cluster is and what its secret is: leave the other flags out")
	case r.stateDir != "":
		s, err := supervisor.ReadSettings(r.stateDir)
		if err != nil {
			return nil, &UsageError{err}
		}
		name, coordinators, r.Credentials, r.finished = s.Cluster, s.Coordinators, s.Credentials(), s.Finished
		if s.SecretFile == "" {
			if err := r.Secrets.Check(); err != nil {
				return nil, &UsageError{err}
			}
		}
	case len(coordinators) == 0:
		return nil, usage("say where the cluster is: --coordinators HOST:PORT,... or, for one on this machine, --state DIR")
	default:
		if err := cluster.ValidateCoordinators(coordinators); err != nil {
			return nil, usage("--coordinators: %w", err)
		}
		if err := r.Secrets.Check(); err != nil {
			return nil, &UsageError{err}
		}
		if err := r.known(); err != nil {
			return nil, &UsageError{err}
		}
	}
	security, err := r.Security()
	if err != nil {
		return nil, &UsageError{err}
	}
	return cluster.NewClient(name, coordinators, security), nil
}
