package bench

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/determinant"
)

// killer decides when to kill whom, from what is seen of the job. It has no clock and no goroutine: follow gives it both.
//
// Single, Q3 and Q8 kill when the job is settled: all workers are there, no task recovers, each has a standby that holds the last checkpoint,
// the workers have the same number of tasks, give or take one, and the sources are not behind. A random part of a checkpoint interval later a
// worker is killed that has a task of the sink. Row and Together wait for that once, and then kill by a fixed schedule.
type killer struct {
	o     *RecoveryOptions
	sink  string
	due   func(now time.Time) uint64 // how many records sources must have taken for the job not to be behind
	late  time.Time                  // when it is pointless to wait any longer for that at the start
	rng   *rand.Rand
	last  sight
	since time.Time // the job ran under load, or a worker was killed last; zero: neither
	next  *appointment
	done  []kill
}

// sight is what was seen of the job at some time.
type sight struct {
	at     time.Time
	status understudy.Status
	names  map[int]string // of the processes that run, by their system's number. It does not change
}

// appointment is a kill to come.
type appointment struct {
	at     time.Time
	names  []string // empty: whoever has a task of the sink then
	unlike string   // why the job is not settled; empty: it is
	waited time.Duration
}

// kill is one process that was killed.
type kill struct {
	name   string
	unlike string
	waited time.Duration // for the job to settle
}

func newKiller(o *RecoveryOptions, sink string, due func(time.Time) uint64, late time.Time) *killer {
	return &killer{o: o, sink: sink, due: due, late: late, rng: rand.New(rand.NewPCG(o.Seed, o.Seed))}
}

// kills is how many processes are killed.
func (o *RecoveryOptions) kills() int {
	switch o.Experiment {
	case Row, Together:
		return connected
	}
	return o.Kills
}

// names are the workers that a fixed schedule kills at its i-th appointment.
func (k *killer) names(i int) (names []string) {
	name := func(i int) string { return "worker-" + strconv.Itoa(i%k.o.Workers) }
	switch k.o.Experiment {
	case Row:
		return []string{name(i)}
	case Together:
		return []string{name(0), name(1), name(2)}
	}
	return nil
}

// see takes a sight, and may make the next appointment. What was seen before the last kill says nothing.
func (k *killer) see(s sight) {
	k.last = s
	if k.next != nil || !s.at.After(k.since) {
		return
	}
	if k.since.IsZero() {
		sum := &s.status.Summary
		if (sum.RecordsOut == 0 || sum.RecordsIn < k.due(s.at)) && s.at.Before(k.late) {
			return
		}
		k.since = s.at
	}
	waited := s.at.Sub(k.since)
	if len(k.done) == 0 {
		waited -= k.o.Before
	}
	unlike := k.unsettled(&s)
	if waited < 0 || unlike != "" && waited < k.o.Settle {
		return
	}
	k.next = &appointment{at: s.at, names: k.names(0), unlike: unlike, waited: waited}
	if k.next.names == nil {
		k.next.at = s.at.Add(time.Duration(k.rng.Int64N(int64(k.o.Interval) + 1)))
	}
}

// keep takes the appointment: it says whom to kill.
func (k *killer) keep() []string {
	if k.next.names != nil {
		return k.next.names
	}
	if k.next.unlike == "" { // it was settled when the appointment was made
		k.next.unlike = k.unsettled(&k.last)
	}
	hosts := hostsOf(&k.last, k.sink)
	if len(hosts) == 0 { // the job is not settled: any worker does
		for _, name := range k.last.names {
			if strings.HasPrefix(name, "worker-") {
				hosts = append(hosts, name)
			}
		}
		slices.Sort(hosts)
	}
	if len(hosts) == 0 {
		return nil
	}
	return []string{hosts[k.rng.IntN(len(hosts))]}
}

// kept notes that an appointment was kept. Now is after the kills.
func (k *killer) kept(now time.Time, names []string) {
	a := k.next
	if len(names) == 0 { // there was nobody: the next sight tells
		k.next = nil
		return
	}
	for _, name := range names {
		k.done = append(k.done, kill{name: name, unlike: a.unlike, waited: a.waited})
	}
	k.report(names)
	k.next, k.since = nil, now
	if i := len(k.done); k.o.Experiment == Row && i < connected {
		k.next = &appointment{at: a.at.Add(rowStep), names: k.names(i), unlike: a.unlike, waited: a.waited}
	}
}

// report says what was done, to whoever waits.
func (k *killer) report(names []string) {
	a, text := k.next, "settled"
	if a.unlike != "" {
		text = "not settled: " + a.unlike + ","
	}
	k.o.Log("killed %s, %d kills so far (%s after %.1f s)", strings.Join(names, ", "), len(k.done), text, a.waited.Seconds())
}

// over tells whether all kills were made.
func (k *killer) over() bool { return len(k.done) >= k.o.kills() }

// unsettled says why a job is not settled, and nothing if it is.
func (k *killer) unsettled(s *sight) string {
	st := &s.status
	if st.State != cluster.JobRunning {
		return "the job is " + string(st.State)
	}
	var counts []int
	for i := range st.Workers {
		if w := &st.Workers[i]; w.State == cluster.WorkerLive && s.names[w.Process] != "" {
			counts = append(counts, w.Tasks)
		}
	}
	if len(counts) != k.o.Workers || len(st.Workers) != k.o.Workers {
		return fmt.Sprintf("%d of %d workers are there", len(counts), k.o.Workers)
	}
	recovering, unprotected := 0, 0
	for i := range st.Tasks {
		t := &st.Tasks[i]
		if t.Worker == 0 || t.Recovering {
			recovering++
		}
		if !slices.ContainsFunc(t.Standbys, func(s cluster.StandbyStatus) bool { return s.Ready && s.Epoch > 0 }) {
			unprotected++
		}
	}
	switch {
	case len(st.Tasks) == 0 || recovering > 0:
		return fmt.Sprintf("%d tasks recover", recovering)
	case slices.Max(counts)-slices.Min(counts) > 1:
		return fmt.Sprintf("the workers have %v tasks", counts)
	case unprotected > 0:
		return fmt.Sprintf("%d tasks have no standby with the last checkpoint", unprotected)
	}
	if due := k.due(s.at); st.Summary.RecordsIn < due {
		return fmt.Sprintf("sources are %d records behind", due-st.Summary.RecordsIn)
	}
	return ""
}

// hostsOf names the worker processes that have a task of the sink, sorted.
func hostsOf(s *sight, sink string) (names []string) {
	host := map[determinant.WorkerID]string{}
	for i := range s.status.Workers {
		w := &s.status.Workers[i]
		host[w.Worker] = s.names[w.Process]
	}
	for i := range s.status.Tasks {
		t := &s.status.Tasks[i]
		if _, is := sinkTask(t.Name, sink); is && host[t.Worker] != "" {
			names = append(names, host[t.Worker])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// sinkTask tells whether a task writes the output, and which partition.
func sinkTask(name, sink string) (index int, is bool) {
	at := strings.LastIndexByte(name, '[')
	if at < 0 || !strings.Contains(name[:at], sink) {
		return 0, false
	}
	index, err := strconv.Atoi(strings.TrimSuffix(name[at+1:], "]"))
	return index, err == nil
}

// follow lets a killer see and kill until it is over. It returns when the last kill was made, or the error of ctx.
func follow(ctx context.Context, k *killer, sights <-chan sight, target chan<- cluster.Target) (last time.Time, err error) {
	for !k.over() {
		var due <-chan time.Time
		if k.next != nil {
			due = time.After(time.Until(k.next.at))
		}
		select {
		case s := <-sights:
			k.see(s)
		case <-due:
			names := k.keep()
			for _, name := range names {
				select {
				case target <- cluster.Target(name):
				case <-ctx.Done():
					return last, ctx.Err()
				}
			}
			last = time.Now()
			k.kept(last, names)
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
	return last, nil
}

// lookout collects sights. Its methods are called by the goroutine that runs the cluster; newest is for another.
type lookout struct {
	names  map[int]string // is replaced when it changes
	newest chan sight     // holds one at most, the last that was not taken
}

func newLookout() *lookout { return &lookout{names: map[int]string{}, newest: make(chan sight, 1)} }

// event notes which processes there are.
func (l *lookout) event(e understudy.ProcessEvent) {
	if e.What != supervisor.Started && e.What != supervisor.Killed && e.What != supervisor.Ended {
		return
	}
	names := maps.Clone(l.names)
	maps.DeleteFunc(names, func(_ int, name string) bool { return name == e.Process })
	if e.What == supervisor.Started {
		names[e.PID] = e.Process
	}
	l.names = names
}

// look takes a status.
func (l *lookout) look(at time.Time, st *understudy.Status) {
	select {
	case <-l.newest:
	default:
	}
	l.newest <- sight{at: at, status: *st, names: l.names} // never blocks: nobody else sends
}
