package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Target is what chaos kills.
type Target string

// The targets. In one process a task is killed alone, as by a panic, and a worker with everything in it. Where workers are
// processes they are killed by kill -9.
const (
	TargetTask        Target = "task"        // only in one process
	TargetWorker      Target = "worker"      // a random one
	TargetCoordinator Target = "coordinator" // the one that leads
	TargetStandby     Target = "standby"     // the worker that holds the standby of a random task
	TargetTwo         Target = "two"         // two random workers at once
	TargetAll         Target = "all"         // every process at once, coordinators too
)

// targets lists what may be killed where.
var (
	localTargets   = []Target{TargetTask, TargetWorker}
	processTargets = []Target{TargetWorker, TargetCoordinator, TargetStandby, TargetTwo, TargetAll}
)

// DefaultPause is how long chaos stops a process.
const DefaultPause = 3 * time.Second

// Chaos makes failures at random, at mean intervals (exponentially distributed), so that recovery can be watched at work.
type Chaos struct {
	Kill   time.Duration // mean time between kills; 0: none
	Target Target        // what is killed, or several joined by "+", of which one is drawn each time. Empty: task, or worker for processes
	Pause  time.Duration // mean time between stops of a random worker process (SIGSTOP, later SIGCONT); 0: none
	For    time.Duration // how long such a stop lasts. Default 3 s
	Link   time.Duration // mean time between cuts of all connections of a random worker process to its peers; 0: none
	Seed   uint64
	Limit  int // failures at most; 0 means no bound
}

// chaosForm is what ParseChaos reads.
const chaosForm = "kill=DURATION,target=task|worker|coordinator|standby|two|all,pause=DURATION,for=DURATION,link=DURATION,seed=N,limit=N"

// ParseChaos reads a form such as "kill=200ms,target=worker,limit=10" or "kill=1s,target=worker+two,pause=5s,for=3s,link=2s,seed=7".
// At least one of kill, pause and link is required.
func ParseChaos(text string) (*Chaos, error) {
	c := &Chaos{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		if err := c.set(key, value); err != nil {
			return nil, fmt.Errorf("cluster: chaos: %w", err)
		}
	}
	switch {
	case c.Kill == 0 && c.Pause == 0 && c.Link == 0:
		return nil, fmt.Errorf("cluster: chaos: %q names no kill=DURATION, pause=DURATION or link=DURATION", text)
	case c.Target != "" && c.Kill == 0:
		return nil, fmt.Errorf("cluster: chaos: target=%s without kill=DURATION", c.Target)
	case c.For != 0 && c.Pause == 0:
		return nil, fmt.Errorf("cluster: chaos: for=%v without pause=DURATION", c.For)
	}
	return c, nil
}

func (c *Chaos) set(key, value string) (err error) {
	durations := map[string]*time.Duration{"kill": &c.Kill, "pause": &c.Pause, "for": &c.For, "link": &c.Link}
	if d, ok := durations[key]; ok {
		if *d, err = time.ParseDuration(value); err != nil || *d <= 0 {
			return fmt.Errorf("%s=%q is not a positive duration such as 200ms", key, value)
		}
		return nil
	}
	switch key {
	case "target":
		c.Target = Target(value)
		for _, t := range c.Targets("") {
			if !slices.Contains(localTargets, t) && !slices.Contains(processTargets, t) {
				return fmt.Errorf("target=%q: want %s, or several joined by +", value, "task, worker, coordinator, standby, two or all")
			}
		}
	case "seed":
		if c.Seed, err = strconv.ParseUint(value, 10, 64); err != nil {
			return fmt.Errorf("seed=%q: want a number", value)
		}
	case "limit":
		if c.Limit, err = strconv.Atoi(value); err != nil || c.Limit < 1 {
			return fmt.Errorf("limit=%q: want a number from 1", value)
		}
	default:
		return fmt.Errorf("unknown key %q: want %s", key, chaosForm)
	}
	return nil
}

// Targets lists what may be killed, byDefault if nothing was said.
func (c *Chaos) Targets(byDefault Target) []Target {
	if c.Target == "" && byDefault != "" {
		return []Target{byDefault}
	}
	var list []Target
	for t := range strings.SplitSeq(string(c.Target), "+") {
		list = append(list, Target(t))
	}
	return list
}

// Validate tells why this chaos cannot be made in one process, or, with processes, on workers that are processes.
func (c *Chaos) Validate(processes bool) error {
	known, where := localTargets, "in one process; workers must be processes for that"
	if processes {
		known, where = processTargets, "where workers are processes"
	}
	for _, t := range c.Targets(known[0]) {
		if !slices.Contains(known, t) {
			return fmt.Errorf("cluster: chaos: target=%s is not possible %s", t, where)
		}
	}
	if !processes && (c.Pause != 0 || c.Link != 0) {
		return errors.New("cluster: chaos: pause and link are not possible " + where)
	}
	if c.Kill < 0 || c.Pause < 0 || c.For < 0 || c.Link < 0 || c.Limit < 0 {
		return errors.New("cluster: chaos: a duration or the limit is negative")
	}
	return nil
}
