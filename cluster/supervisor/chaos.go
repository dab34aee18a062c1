package supervisor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/understudy-stream/understudy/cluster"
)

// chaos makes failures at random times.
type chaos struct {
	spec    cluster.Chaos
	targets []cluster.Target
	made    int
}

// startChaos begins with the failures. Each kind has a generator of its own, so that its times do not depend on the other kinds.
func (s *supervisor) startChaos() {
	c := &chaos{spec: *s.opts.Chaos}
	c.targets = c.spec.Targets(cluster.TargetWorker)
	if c.spec.For == 0 {
		c.spec.For = cluster.DefaultPause
	}
	s.chaos = c
	for stream, kind := range []struct {
		every time.Duration
		act   func(*rand.Rand) bool
	}{
		{c.spec.Kill, func(rng *rand.Rand) bool { return s.kill(c.targets[rng.IntN(len(c.targets))]) }},
		{c.spec.Pause, func(*rand.Rand) bool { return s.pause(c.spec.For) }},
		{c.spec.Link, func(*rand.Rand) bool { return s.cut() }},
	} {
		if kind.every > 0 {
			s.repeat(c, rand.New(rand.NewPCG(c.spec.Seed, uint64(stream)+1)), kind.every, kind.act)
		}
	}
}

// repeat makes failures of one kind until there are enough.
func (s *supervisor) repeat(c *chaos, rng *rand.Rand, every time.Duration, act func(*rand.Rand) bool) {
	s.after(time.Duration(rng.ExpFloat64()*float64(every)), func() {
		if s.phase == ending || s.phase == stopping || c.spec.Limit > 0 && c.made >= c.spec.Limit {
			return
		}
		if act(rng) {
			c.made++
		}
		s.repeat(c, rng, every, act)
	})
}

// delay is how long a process that was killed stays down.
func (s *supervisor) delay() time.Duration { return time.Duration(s.rng.Int64N(int64(killedFor))) }

// kill kills by kill -9. It reports whether there was something to kill.
func (s *supervisor) kill(target cluster.Target) bool {
	if s.phase != running {
		return false
	}
	var victims []*slot
	switch target {
	case cluster.TargetWorker:
		victims = s.draw(1)
	case cluster.TargetTwo:
		victims = s.draw(2)
	case cluster.TargetStandby:
		victims = s.holder()
	case cluster.TargetCoordinator:
		victims = s.leader()
	case cluster.TargetAll:
		s.each(func(p *slot) {
			if p.proc != nil && !p.ordered {
				victims = append(victims, p)
			}
		})
	default:
		s.each(func(p *slot) {
			if p.proc != nil && !p.ordered && p.name() == string(target) {
				victims = append(victims, p)
			}
		})
	}
	if len(victims) == 0 {
		return false
	}
	s.note(Act{Kind: ActKill, Target: target}, victims)
	for _, p := range victims {
		p.ordered = true
		s.signal(p, syscall.SIGKILL)
	}
	for _, p := range victims {
		s.happened(p, Killed, "kill -9")
	}
	return true
}

// draw picks n workers that run, or none if there are not so many.
func (s *supervisor) draw(n int) []*slot {
	var live []*slot
	s.each(func(p *slot) {
		if p.assignment.Role == Worker && p.proc != nil && !p.ordered {
			live = append(live, p)
		}
	})
	if len(live) < n {
		return nil
	}
	s.rng.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
	return live[:n]
}

// holder picks the worker that holds a standby of a random task.
func (s *supervisor) holder() []*slot {
	if len(s.status.Tasks) == 0 {
		return nil
	}
	t := &s.status.Tasks[s.rng.IntN(len(s.status.Tasks))]
	for _, standby := range t.Standbys {
		if p := s.slotOf(standby.Worker); p != nil && !p.ordered {
			return []*slot{p}
		}
	}
	return nil
}

// leader finds the coordinator that leads, as far as is known.
func (s *supervisor) leader() []*slot {
	address := leaderOf(&s.status)
	for _, p := range s.slots {
		if p.assignment.Role == Coordinator && p.assignment.Listen == address && p.proc != nil && !p.ordered {
			return []*slot{p}
		}
	}
	return nil
}

// note records an act that begins now.
func (s *supervisor) note(a Act, victims []*slot) {
	a.At = time.Now().UnixMicro()
	a.Processes, a.Workers = []string{}, nil
	for _, p := range victims {
		a.Processes = append(a.Processes, p.name())
		if w := s.workerOf(p); w != 0 {
			a.Workers = append(a.Workers, w)
		}
	}
	if len(s.record.acts) < maxActs {
		s.record.acts = append(s.record.acts, a)
	}
}

// pause stops a random worker for some time.
func (s *supervisor) pause(d time.Duration) bool {
	victims := s.draw(1)
	if s.phase != running || len(victims) == 0 || victims[0].paused {
		return false
	}
	p, life := victims[0], victims[0].proc
	s.note(Act{Kind: ActPause}, victims)
	s.signal(p, syscall.SIGSTOP)
	p.paused = true
	s.happened(p, Paused, fmt.Sprintf("SIGSTOP for %v", d))
	s.after(d, func() {
		if p.proc == life {
			s.resume(p)
		}
	})
	return true
}

// resume lets a process go on that was paused.
func (s *supervisor) resume(p *slot) {
	if p.proc == nil || !p.paused {
		return
	}
	p.paused = false
	s.signal(p, syscall.SIGCONT)
	s.happened(p, Resumed, "SIGCONT")
}

// cut breaks the connections of a random worker to its peers.
func (s *supervisor) cut() bool {
	victims := s.draw(1)
	if s.phase != running || len(victims) == 0 {
		return false
	}
	w := s.workerOf(victims[0])
	if w == 0 {
		return false
	}
	s.note(Act{Kind: ActLink}, victims)
	s.happened(victims[0], Cut, fmt.Sprintf("worker %d", w))
	s.ask(func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, pollTimeout)
		defer cancel()
		err := s.client.CutLinks(ctx, w)
		return func() {
			if err != nil { // it has died meanwhile, or nobody leads
				s.opts.Logger.Info("links were not cut", "worker", w, "error", err)
			}
		}
	})
	return true
}
