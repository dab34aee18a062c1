package standby

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden output of the stories")

// Each file in testdata is a story: commands, a line of dashes, and what came of them. Lines that begin with # are for the
// reader. `go test -run Stories -rewrite` writes the output anew.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			got := tell(string(want))
			if *rewrite {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(want), got)
		})
	}
}

// tell runs the commands of a story and puts the output that it had behind each block.
func tell(text string) string {
	var out strings.Builder
	s := &story{}
	inOutput := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case inOutput && line != "":
			continue
		case line == "----":
			inOutput = true
			out.WriteString("----\n")
			for _, l := range s.flush() {
				out.WriteString(l + "\n")
			}
			continue
		case line == "":
			inOutput = false
		case !strings.HasPrefix(line, "#"):
			s.run(strings.Fields(line))
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

// story is the interpreter of the commands.
type story struct {
	*cluster
	config Config
	lines  []string
}

func (s *story) flush() []string {
	lines := s.lines
	if s.cluster != nil {
		lines = append(lines, s.effects...)
		s.effects = nil
	}
	s.lines = nil
	if len(lines) == 0 {
		lines = []string{"ok"}
	}
	return lines
}

// run interprets one command. The commands:
//
//	topology NAME [standbys=N] [mode=M] [depth=D] [balance=MS] [mutations=M]    a new job
//	workers W...            they join, and hold nothing but the empty state
//	deploy                  the first placement
//	join W [T@E...]         a worker joins and holds the state of tasks T at checkpoint E
//	holding W T@E...        a worker reports what it holds
//	die W...                workers die and the coordinator hears of it; "kill" keeps it from the coordinator
//	unkept W T, kept W T    a worker cannot store a task's state, or can again
//	fail T, wants T, caught-up T   the present incarnation of a task reports
//	checkpoint E [mode=M] [depth=D]   committed; primaries and standbys hold it; the open epoch has this mode and depth
//	drain W, undrain W      a worker is to be freed for maintenance, or not any more
//	tick MS                 the time
//	quiet N MS              N times MS pass in which recoveries end, standbys hold what is committed, and a checkpoint completes
//	commit [N]              the ledger takes N proposals, all by default; "drop" loses those in flight
//	leader                  another coordinator takes over, with the ledger's knowledge
//	unsure                  the coordinator does not know what became of its proposals
//	answer T ORIGIN [round=R] [base=B] [log=TEXT] [past=T:BASE:TEXT]   ORIGIN is a worker, or sN for the store of sink N
//	answers [no-stores]     everyone alive answers what is missing, with nothing
//	ready T                 the state of the checkpoint is restored
//	show, promotions        the placements; the promotions under way
//	recoverable T...        asks the topology, at depth=D
//	upstream T, order, auto-depth f=F    likewise; one worker per task, or T/N with per=N tasks a worker
func (s *story) run(words []string) {
	args := parseArgs(words[1:])
	switch words[0] {
	case "topology":
		s.config = Config{
			Topology: topologyNamed(words[1]), Standbys: args.number("standbys", 0), Mode: args.mode(), Depth: args.depth(),
			BalanceAfter: int64(args.number("balance", 0)), Mutations: args.mutations(),
		}
		s.cluster = newCluster(s.config, State{})
	case "workers":
		for _, w := range args.workers() {
			s.step(Joined{Worker: w})
		}
	case "die":
		s.die(args.workers()...)
		s.step(Dead{Workers: args.workers()})
	case "kill":
		s.die(args.workers()...)
	case "deploy":
		s.step(Deploy{})
	case "join":
		s.step(Joined{Worker: args.worker(0), Holds: args.held()})
	case "holding":
		for _, h := range args.held() {
			s.step(Holding{Worker: args.worker(0), Task: h.Task, Epoch: h.Epoch})
		}
	case "unkept", "kept":
		s.step(Unkept{Worker: args.worker(0), Task: args.task(1), Off: words[0] == "kept"})
	case "fail", "wants", "caught-up":
		s.report(words[0], s.decider.Task(args.task(0)))
	case "checkpoint":
		s.checkpoint(determinant.Epoch(args.worker(0)), EpochMode{args.mode(), args.depth()})
	case "drain", "undrain":
		s.step(Drain{Worker: args.worker(0), Off: words[0] == "undrain"})
	case "tick":
		s.step(Tick{Now: int64(args.worker(0))})
	case "quiet":
		for range args.task(0) {
			s.quiet(int64(args.worker(1)))
		}
	case "commit":
		s.commitSome(args)
	case "drop":
		s.inFlight = nil
	case "leader":
		s.newLeader()
	case "unsure":
		s.step(Leader{})
	default:
		s.runPromotion(words[0], args)
	}
}

func (s *story) runPromotion(command string, args storyArgs) {
	switch command {
	case "answer":
		s.answer(args)
	case "answers":
		s.answerAll(len(args.plain) == 0)
	case "ready":
		s.promote(int(args.task(0)), StateReady{})
	case "show":
		st := s.decider.State()
		s.note("round %d generation %d checkpoint %d dead %v live %v", st.Round, st.Generation, st.Checkpoint, st.Dead, s.decider.Live())
		for _, p := range st.Tasks {
			s.note("    %v", p)
		}
		for _, l := range s.decider.Drains() {
			s.note("    %v", l)
		}
	case "promotions":
		for _, p := range s.promotions {
			if p != nil {
				s.note("%v", p)
			}
		}
	case "recoverable":
		var failed []int
		for i := range args.plain {
			failed = append(failed, int(args.task(i)))
		}
		ok, why := s.config.Topology.Recoverable(failedSet(s.config.Topology.Tasks, failed...), args.depth())
		s.note("%s", strings.TrimSpace(fmt.Sprintf("%v %v: %v %s", args.plain, args.depth(), ok, why)))
	case "upstream":
		s.note("%v", s.config.Topology.Upstream(args.task(0), args.depth()))
	case "order":
		s.note("%v", s.config.Topology.Order())
	case "auto-depth":
		place := make(ws, s.config.Topology.Tasks)
		for t := range place {
			place[t] = determinant.WorkerID(1 + t/args.number("per", 1))
		}
		s.note("place %v: %v", place, AutoDepth(s.config.Topology, place, args.number("f", 1)))
	default:
		panic("unknown command " + command)
	}
}

func (s *story) report(what string, p Placement) {
	switch what {
	case "fail":
		s.step(TaskFailed{Task: p.Task, Incarnation: p.Incarnation, Worker: p.Worker, Cause: "user function failed"})
	case "wants":
		s.step(RollbackWanted{Task: p.Task, Incarnation: p.Incarnation, Cause: "cursor checksum"})
	case "caught-up":
		s.step(CaughtUp{Task: p.Task, Incarnation: p.Incarnation})
	}
}

func (s *story) commitSome(args storyArgs) {
	if len(args.plain) == 0 {
		s.commitAll()
		return
	}
	for range args.task(0) {
		s.commitNext()
	}
}

func (s *story) answer(args storyArgs) {
	t := args.task(0)
	p := s.promotions[t]
	if p == nil {
		s.note("no promotion of task %d", t)
		return
	}
	from := Origin{}
	if sink, ok := strings.CutPrefix(args.plain[1], "s"); ok {
		from = FromStore(determinant.TaskID(atoi(sink)))
	} else {
		from = FromWorker(args.worker(1))
	}
	a := Answer{
		From: from, Round: determinant.Round(args.number("round", int(p.Round()))),
		Copy: causal.Copy{Task: t, Base: determinant.LogOffset(args.number("base", 0)), Bytes: []byte(args.named["log"])},
	}
	if past, ok := args.named["past"]; ok {
		parts := strings.Split(past, ":")
		a.Past = []causal.Copy{{Task: determinant.TaskID(atoi(parts[0])), Base: determinant.LogOffset(atoi(parts[1])), Bytes: []byte(parts[2])}}
	}
	s.promote(int(t), a)
}

// storyArgs are the words behind a command: plain ones, and name=value.
type storyArgs struct {
	plain []string
	named map[string]string
}

func parseArgs(words []string) storyArgs {
	a := storyArgs{named: map[string]string{}}
	for _, w := range words {
		if name, value, ok := strings.Cut(w, "="); ok {
			a.named[name] = value
		} else {
			a.plain = append(a.plain, w)
		}
	}
	return a
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(fmt.Sprintf("story: %v", err))
	}
	return n
}

func (a storyArgs) task(i int) determinant.TaskID     { return determinant.TaskID(atoi(a.plain[i])) }
func (a storyArgs) worker(i int) determinant.WorkerID { return determinant.WorkerID(atoi(a.plain[i])) }

func (a storyArgs) workers() (out ws) {
	for i := range a.plain {
		out = append(out, a.worker(i))
	}
	return slices.Sorted(slices.Values(out))
}

func (a storyArgs) held() (out []Held) {
	for _, w := range a.plain[1:] {
		task, epoch, _ := strings.Cut(w, "@")
		out = append(out, Held{Task: determinant.TaskID(atoi(task)), Epoch: determinant.Epoch(atoi(epoch))})
	}
	return out
}

func (a storyArgs) number(name string, otherwise int) int {
	if v, ok := a.named[name]; ok {
		return atoi(v)
	}
	return otherwise
}

func (a storyArgs) depth() determinant.Depth {
	if v, ok := a.named["depth"]; ok && v != "full" {
		return determinant.Depth(atoi(v))
	}
	return determinant.Full
}

func (a storyArgs) mode() determinant.Mode {
	if v, ok := a.named["mode"]; ok {
		m, err := determinant.ParseMode(v)
		if err != nil {
			panic(err)
		}
		return m
	}
	return determinant.ExactlyOnce
}

func (a storyArgs) mutations() mutation.Set {
	m, err := mutation.Parse(a.named["mutations"])
	if err != nil {
		panic(err)
	}
	return m
}
