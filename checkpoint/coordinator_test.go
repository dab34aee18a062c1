package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// TestStories plays the files in testdata. A line "> word …" is an event; the lines after it are the effects, which
// -rewrite writes anew. Tasks are written task/incarnation, epochs e1, workers w1.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			got := playStory(t, string(text))
			if *rewrite {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(text), got)
		})
	}
}

// story is a Coordinator, a ledger that commits when it is told to, and what the last event caused.
type story struct {
	t        *testing.T
	config   Config
	c        *Coordinator
	proposed []Command
	out      []string
}

func playStory(t *testing.T, text string) string {
	s := &story{t: t}
	var b strings.Builder
	for line := range strings.Lines(text) {
		event, ok := strings.CutPrefix(line, "> ")
		if !ok {
			if line == "\n" || strings.HasPrefix(line, "#") {
				b.WriteString(line)
			}
			continue // an effect, written anew
		}
		b.WriteString(line)
		s.out = nil
		s.play(strings.Fields(event))
		for _, effect := range s.out {
			b.WriteString("  " + effect + "\n")
		}
	}
	return b.String()
}

func (s *story) play(words []string) {
	switch words[0] {
	case "job":
		s.start(words[1:])
	case "restart": // a new process, which reads the ledger's snapshot
		state := s.c.State()
		b, err := msgpack.Marshal(&state)
		require.NoError(s.t, err)
		state = State{}
		require.NoError(s.t, msgpack.Unmarshal(b, &state))
		s.c, s.proposed = NewCoordinator(s.config, state), nil
	case "commit":
		require.NotEmpty(s.t, s.proposed, "nothing is proposed")
		cmd := s.proposed[0]
		s.proposed = s.proposed[1:]
		before := s.c.State()
		if !before.Apply(cmd) {
			s.out = append(s.out, "does not count: "+cmd.String())
		}
		s.step(Committed{cmd})
	case "lose":
		s.proposed = nil
	case "state":
		s.printState()
	default:
		s.step(s.event(words))
	}
}

func (s *story) start(words []string) {
	n, mode, depth := 0, determinant.ExactlyOnce, determinant.Full
	s.config = Config{}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		var err error
		switch key {
		case "tasks":
			n = int(s.number(value))
		case "sources":
			for part := range strings.SplitSeq(value, ",") {
				s.config.Sources = append(s.config.Sources, determinant.TaskID(s.number(part)))
			}
		case "interval":
			s.config.Interval = int64(s.number(value))
		case "timeout":
			s.config.Timeout = int64(s.number(value))
		case "mode":
			mode, err = determinant.ParseMode(value)
		case "mutation":
			s.config.Mutations, err = mutation.Parse(value)
		default:
			s.t.Fatalf("unknown option %q", w)
		}
		require.NoError(s.t, err)
	}
	s.c, s.proposed = NewCoordinator(s.config, NewState(n, mode, depth)), nil
}

func (s *story) event(words []string) Event {
	args := words[1:]
	switch words[0] {
	case "tick":
		return Tick{Now: int64(s.number(args[0]))}
	case "request":
		return Request{}
	case "leader":
		return Leader{}
	case "deposed":
		return Deposed{}
	case "switch":
		mode, err := determinant.ParseMode(args[0])
		require.NoError(s.t, err)
		return SwitchMode{Mode: mode}
	case "ack":
		a := Ack{Epoch: determinant.Epoch(s.number(args[1])), Worker: determinant.WorkerID(s.number(args[2]))}
		a.Task, a.Incarnation = s.life(args[0])
		a.Primary, a.Ended = slices.Contains(args, "primary"), slices.Contains(args, "ended")
		a.Log = determinant.LogOffset(10 * a.Epoch)
		return a
	case "failed":
		f := Failed{Epoch: determinant.Epoch(s.number(args[1])), Worker: determinant.WorkerID(s.number(args[2])), Err: "disk"}
		f.Task, f.Incarnation = s.life(args[0])
		return f
	case "placed": // task/incarnation[+standby…], then ! if it recovers, ~ if it is handed over, for every task
		var p Placed
		for _, w := range args {
			w, handed := strings.CutSuffix(w, "~")
			w, recovering := strings.CutSuffix(w, "!")
			parts := strings.Split(w, "+")
			_, inc := s.life(parts[0])
			var standbys []determinant.WorkerID
			for _, part := range parts[1:] {
				standbys = append(standbys, determinant.WorkerID(s.number(part)))
			}
			p.Incarnations = append(p.Incarnations, inc)
			p.Standbys = append(p.Standbys, standbys)
			p.Recovering = append(p.Recovering, recovering || handed)
			p.Handed = append(p.Handed, handed)
		}
		return p
	}
	s.t.Fatalf("unknown event %q", words)
	return nil
}

func (s *story) number(text string) uint64 {
	n, err := strconv.ParseUint(strings.TrimLeft(text, "ew"), 10, 64)
	require.NoError(s.t, err)
	return n
}

func (s *story) life(text string) (determinant.TaskID, determinant.Incarnation) {
	task, inc, _ := strings.Cut(text, "/")
	return determinant.TaskID(s.number(task)), determinant.Incarnation(s.number(inc))
}

func (s *story) step(ev Event) {
	for _, effect := range s.c.Step(ev) {
		switch e := effect.(type) {
		case Propose:
			s.proposed = append(s.proposed, e.Command)
			s.out = append(s.out, "propose "+e.Command.String())
		case Trigger:
			what := "barrier"
			if e.Skip {
				what = "skip"
			}
			s.out = append(s.out, fmt.Sprintf("trigger %d/%d: %s %d, then %s depth %s", e.Task, e.Incarnation, what, e.Epoch, e.Mode, e.Depth))
		case Poll:
			s.out = append(s.out, fmt.Sprintf("poll %d", e.Epoch))
		case Done:
			s.out = append(s.out, fmt.Sprintf("done at %d", e.Epoch))
		}
	}
}

func (s *story) printState() {
	st := s.c.State()
	mode, depth := st.Recovery()
	s.out = append(s.out, fmt.Sprintf("committed %d started %d open %t void %t recovery %s depth %s", st.Committed, st.Started(), st.Open, st.Void, mode, depth))
	if len(st.Tasks) > 0 {
		s.out = append(s.out, "as "+Complete{Epoch: st.Committed, Tasks: st.Tasks}.String())
	}
	for _, a := range st.Since {
		s.out = append(s.out, fmt.Sprintf("%d then %s depth %s, abandoned %t", a.Epoch, a.Mode, a.Depth, a.Abandoned))
	}
}
