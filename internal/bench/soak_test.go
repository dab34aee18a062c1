package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/internal/nexmark"
)

var soakFor = flag.Duration("bench.soak", 0, "how long each query of TestSoak runs; 0: not at all")

const (
	soakLook    = 250 * time.Millisecond
	soakGrowth  = 1.15    // of the last third's median by the second third's
	soakSlack   = 8 << 20 // bytes by which a small figure may grow nevertheless: a checkpoint interval may hold more or less
	soakEvents  = 1 << 50 // more than there is time for
	soakSamples = 30      // at least
)

// level is what a job held at some time, in bytes.
type level struct {
	heap        float64 // live, when garbage was last collected
	inflight    float64 // kept output of the worker that has most
	choices     float64 // determinants of the worker that has most
	disk        float64 // the state directory
	checkpoints int     // completed so far
}

// kinds are the figures that must stay flat.
var kinds = []struct {
	name string
	of   func(level) float64
}{
	{"live heap less kept output", func(l level) float64 { return max(0, l.heap-l.inflight) }},
	{"kept output", func(l level) float64 { return l.inflight }},
	{"determinants", func(l level) float64 { return l.choices }},
	{"state directory", func(l level) float64 { return l.disk }},
}

// errNotFlat says that something grows.
var errNotFlat = errors.New("bench: something grows")

// flat compares the last third with the one before.
func flat(levels []level) (text string, err error) {
	if len(levels) < soakSamples {
		return "", fmt.Errorf("bench: only %d looks in a soak", len(levels))
	}
	third := len(levels) / 3
	for _, k := range kinds {
		var thirds [3]float64
		for i := range thirds {
			var values []float64
			for _, l := range levels[i*third : (i+1)*third] {
				values = append(values, k.of(l))
			}
			thirds[i] = median(values)
		}
		text += fmt.Sprintf("%-27s median of each third: %7.1f %7.1f %7.1f MB\n", k.name, thirds[0]/1e6, thirds[1]/1e6, thirds[2]/1e6)
		if thirds[2] > soakGrowth*thirds[1]+soakSlack {
			err = errors.Join(err, fmt.Errorf("%w: %s, from %.1f MB in the second third to %.1f MB in the last", errNotFlat, k.name, thirds[1]/1e6, thirds[2]/1e6))
		}
	}
	if levels[2*third].checkpoints == levels[len(levels)-1].checkpoints {
		err = errors.Join(err, fmt.Errorf("%w: no checkpoint was completed in the last third", errNotFlat))
	}
	return text, err
}

// What leaks is noticed, whatever it is, and what merely swings is not.
func TestFlat(t *testing.T) {
	steady := func(i int) level {
		swing := float64(i%4) * 5e6
		return level{heap: 100e6 + 2*swing, inflight: 2 * swing, choices: swing, disk: 50e6 + swing, checkpoints: i / 4}
	}
	levels := func(change func(i int, l *level)) (all []level) {
		for i := range 120 {
			l := steady(i)
			change(i, &l)
			all = append(all, l)
		}
		return all
	}
	text, err := flat(levels(func(int, *level) {}))
	require.NoError(t, err)
	require.Contains(t, text, "determinants")
	for name, leak := range map[string]func(i int, l *level){
		"live heap":       func(i int, l *level) { l.heap += float64(i) * 3e6 },
		"kept output":     func(i int, l *level) { l.inflight += float64(i) * 1e6 },
		"determinants":    func(i int, l *level) { l.choices += float64(i) * 1e6 },
		"state directory": func(i int, l *level) { l.disk += float64(i) * 3e6 },
		"no checkpoint":   func(_ int, l *level) { l.checkpoints = 1 },
	} {
		_, err := flat(levels(leak))
		require.ErrorIs(t, err, errNotFlat, name)
		require.ErrorContains(t, err, name)
	}
	_, err = flat(levels(func(int, *level) {})[:10])
	require.Error(t, err)
}

// Memory and disk stay flat while queries run at full rate, exactly once: `make soak`.
func TestSoak(t *testing.T) {
	if *soakFor == 0 {
		t.Skip("only with -bench.soak")
	}
	for _, query := range []string{"q5", "q8"} {
		t.Run(query, func(t *testing.T) { soak(t, query) })
	}
}

func soak(t *testing.T, query string) {
	sink := newTallySink(xxhash.Sum64)
	job, err := nexmark.Build(query, nexmark.Options{Source: nexmark.SourceOptions{Events: soakEvents, Splits: 2}, Sink: sink})
	require.NoError(t, err)
	plan, err := job.Plan(2)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), *soakFor)
	defer cancel()
	dir := t.TempDir()
	var levels []level
	checkpoints := make(chan cluster.Checkpointed, 1<<16)
	looked := make(chan struct{})
	sum, err := cluster.RunLocal(ctx, plan, cluster.LocalOptions{
		Mode: understudy.ExactlyOnce, CheckpointInterval: time.Second, BalanceAfter: -1, StateDir: dir,
		Checkpointed: func(c cluster.Checkpointed) { checkpoints <- c },
		Started: func(l *cluster.Local) {
			go func() {
				defer close(looked)
				levels = watchLevels(ctx, l, dir, checkpoints)
			}()
		},
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	<-looked
	require.Zero(t, sum.TasksRestarted+sum.Rollbacks, "something befell the job")
	tally, _, _ := sink.seen()
	require.Positive(t, tally.Rows)
	text, err := flat(levels)
	t.Logf("%s: %d events in %v, %.0f/s, %d rows, %d checkpoints\n%s", query, sum.RecordsIn, *soakFor, float64(sum.RecordsIn)/soakFor.Seconds(),
		tally.Rows, levels[len(levels)-1].checkpoints, text)
	require.NoError(t, err)
}

// watchLevels looks until ctx ends.
func watchLevels(ctx context.Context, l *cluster.Local, dir string, checkpoints <-chan cluster.Checkpointed) (levels []level) {
	ticker := time.NewTicker(soakLook)
	defer ticker.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		select {
		case <-ctx.Done():
			return levels
		case <-ticker.C:
		}
		metrics.Read(live)
		memory, spilled := l.InflightBytes()
		levels = append(levels, level{
			heap: float64(live[0].Value.Uint64()), inflight: float64(memory + spilled), choices: float64(l.LogBytes()), disk: float64(diskUsed(dir)),
			checkpoints: len(checkpoints),
		})
	}
}
