package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/understudy-stream/understudy/cluster"
)

// Times of a run.
const (
	pollInterval     = 100 * time.Millisecond
	pollTimeout      = 2 * time.Second
	progressInterval = 250 * time.Millisecond
	stopTimeout      = 30 * time.Second // a stop with its checkpoint
	leaveTimeout     = 2 * time.Second  // for processes that were told to stop to end by themselves
	doneTimeout      = 3 * time.Second  // from the end of a process whose job is done to the end without asking
	killTimeout      = 5 * time.Second  // from SIGTERM to SIGKILL
	staleTimeout     = 3 * time.Second  // how long a failure may be one of an earlier run
	maxMoves         = 5                // of coordinators whose addresses are taken
	eventBuffer      = 64               // events that wait for the supervisor's goroutine
)

// Errors of Run after which the job can go on later.
var (
	ErrStopped = errors.New("supervisor: the cluster was told to stop") // by somebody else
	ErrAborted = errors.New("supervisor: all processes were killed")    // Options.Abort
)

// phase is where a run is in its life.
type phase int

const (
	running  phase = iota
	moving         // all processes are killed, because the coordinators need other addresses
	stopping       // a checkpoint is taken; processes end by themselves
	ending         // processes are told to end
)

// supervisor is one run. All of it belongs to the goroutine of Run.
type supervisor struct {
	opts     Options
	dir      *directory
	client   Client
	spawner  *spawner
	events   chan func()
	work     sync.WaitGroup  // goroutines that ask the cluster
	ctx      context.Context // of these goroutines
	cancel   context.CancelFunc
	slots    []*slot
	agenda   agenda
	phase    phase
	alive    int // processes
	moves    int
	restarts int
	result   error
	over     bool  // result counts
	leaving  error // of phase stopping: why, once all processes were told to end

	rng     *rand.Rand
	chaos   *chaos // nil until the job runs
	started time.Time
	record  record
	status  cluster.Status // the last one
	asking  bool           // for a status
	shown   time.Time      // when progress was
	ran     bool           // the job was seen running
}

// Run runs a job in processes of their own until it is done, it fails, or ctx ends; then a checkpoint is taken first, and the
// error is that of ctx. The summary is good in every case. When the same is run again it goes on where it was.
func Run(ctx context.Context, o Options) (Summary, error) {
	if err := o.Validate(); err != nil {
		return Summary{}, err
	}
	if err := o.ensureDefaults(); err != nil {
		return Summary{}, err
	}
	dir, err := openDirectory(ctx, &o)
	if err != nil {
		return Summary{}, err
	}
	s := &supervisor{opts: o, dir: dir, events: make(chan func(), eventBuffer), started: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	err = s.run(ctx)
	s.cancel()
	return s.summary(), errors.Join(err, dir.lock.Close())
}

func (s *supervisor) run(ctx context.Context) error {
	resumed := s.dir.settings.Formed
	s.record = newRecord(resumed)
	if s.dir.settings.Finished {
		s.record.sum.Complete = true
		return nil
	}
	if resumed {
		if err := awaitFree(ctx, s.dir.settings.Coordinators); err != nil {
			return fmt.Errorf("supervisor: a coordinator must listen where it did when the job began: %w", err)
		}
	}
	var seed uint64
	if s.opts.Chaos != nil {
		seed = s.opts.Chaos.Seed
	}
	s.rng = rand.New(rand.NewPCG(seed, 0))
	s.spawner = newSpawner()
	defer s.spawner.close()
	defer s.drain()
	if err := s.form(); err != nil {
		s.finish(err)
	}
	s.after(0, s.poll)
	s.loop(ctx)
	return s.result
}

// form makes the slots, of all processes, and starts them.
func (s *supervisor) form() error {
	s.slots = nil
	settings := &s.dir.settings
	add := func(role Role, index int, listen string) {
		s.slots = append(s.slots, &slot{index: index, assignment: Assignment{
			Role: role, Name: processName(role, index), Job: s.opts.Job, Call: s.opts.Call, Cluster: settings.Cluster, Listen: listen,
			Coordinators: settings.Coordinators, StateDir: s.dir.process(role, index), Workers: s.opts.Workers,
			CA: settings.CA, Certificate: settings.Certificate, Key: settings.Key, Outlive: s.opts.Outlive,
			Level: min(levelOf(s.opts.Logger), slog.LevelWarn), secret: s.dir.secret,
		}})
	}
	for i, address := range settings.Coordinators {
		add(Coordinator, i, address)
	}
	for i := range s.opts.Workers {
		add(Worker, i, net.JoinHostPort(s.opts.Host, "0"))
	}
	var err error
	if s.client, err = s.opts.Client(*settings, s.dir.secret); err != nil {
		return err
	}
	s.each(s.start)
	return nil
}

// loop carries out what happens until no process is left.
func (s *supervisor) loop(ctx context.Context) {
	interrupted, aborted := ctx.Done(), s.opts.Abort
	for s.alive > 0 || !s.over {
		timer := time.NewTimer(s.agenda.wait(time.Now()))
		select {
		case event := <-s.events:
			event()
		case target := <-s.opts.Kill:
			s.kill(target)
		case <-interrupted:
			interrupted = nil
			s.interrupt(context.Cause(ctx))
		case <-aborted:
			aborted = nil
			s.finish(ErrAborted)
			s.each(func(p *slot) { s.signal(p, syscall.SIGKILL) })
		case <-timer.C:
			s.agenda.run(time.Now())
		}
		timer.Stop()
	}
}

// drain takes the events that come until all goroutines have ended.
func (s *supervisor) drain() {
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	for {
		select {
		case <-s.events:
		case <-done:
			return
		}
	}
}

func (s *supervisor) after(d time.Duration, f func()) { s.agenda.add(time.Now().Add(d), f) }

func (s *supervisor) each(f func(*slot)) {
	for _, p := range s.slots {
		f(p)
	}
}

// ask runs f, which asks the cluster something, on a goroutine of its own, and then the function that it returns on Run's.
func (s *supervisor) ask(f func(context.Context) func()) {
	s.work.Go(func() {
		then := f(s.ctx)
		s.events <- then
	})
}

// happened tells whoever wants to know.
func (s *supervisor) happened(p *slot, what Happening, detail string) {
	s.opts.Logger.Info(string(what), "process", p.name(), "detail", detail)
	if s.opts.Event != nil {
		e := Event{At: time.Now(), Process: p.name(), What: what, Detail: detail}
		if p.proc != nil {
			e.PID = p.proc.pid()
		}
		s.opts.Event(e)
	}
}

// interrupt stops the cluster so that it can go on later.
func (s *supervisor) interrupt(cause error) {
	if s.phase != running {
		s.finish(cause)
		return
	}
	s.opts.Logger.Info("stopping: a checkpoint is taken first")
	s.phase = stopping
	s.each(s.resume)
	s.ask(func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, stopTimeout)
		defer cancel()
		_, err := s.client.Stop(ctx)
		return func() {
			if err != nil {
				s.opts.Logger.Warn("the cluster cannot be stopped with a checkpoint; it goes on from an earlier one", "error", err)
				s.finish(cause)
				return
			}
			s.leave(cause)
		}
	})
}

// stopped is called when a process ends because somebody told the cluster to stop.
func (s *supervisor) stopped() {
	s.phase = stopping
	s.leave(ErrStopped)
}

// leave ends the run when all processes have ended, which were told to, or some time later.
func (s *supervisor) leave(cause error) {
	s.leaving = cause
	s.after(leaveTimeout, func() { s.finish(cause) })
	if s.alive == 0 {
		s.finish(cause)
	}
}

// finish ends the run, once. Processes that are still there are told to end, and killed if they do not.
func (s *supervisor) finish(err error) {
	if s.over {
		return
	}
	s.over, s.result, s.phase = true, err, ending
	s.each(s.resume)
	s.each(func(p *slot) { s.signal(p, syscall.SIGTERM) })
	s.after(killTimeout, func() { s.each(func(p *slot) { s.signal(p, syscall.SIGKILL) }) })
}

// done ends a run whose job is over.
func (s *supervisor) done(err error) {
	if s.over {
		return
	}
	if err == nil {
		s.dir.settings.Finished = true
		err = s.dir.save()
	}
	s.finish(err)
}
