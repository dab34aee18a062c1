package task

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

// drawScript draws what arrives on each of the task's inputs: some epochs, and the end.
func drawScript(t *rapid.T, channels int) [][]inflightlog.Element {
	epochs := rapid.IntRange(1, 3).Draw(t, "epochs")
	inputs := make([][]inflightlog.Element, channels)
	for i := range inputs {
		wm, idle := int64(0), false
		for e := 1; e <= epochs; e++ {
			for range rapid.IntRange(0, 10).Draw(t, "elements") {
				switch rapid.IntRange(0, 9).Draw(t, "kind") {
				case 0:
					wm += int64(rapid.IntRange(1, 30).Draw(t, "watermark"))
					inputs[i] = append(inputs[i], watermark(wm))
				case 1:
					idle = !idle
					kind := inflightlog.Active
					if idle {
						kind = inflightlog.Idle
					}
					inputs[i] = append(inputs[i], control(kind))
				case 2:
					inputs[i] = append(inputs[i], recordAt(rapid.Uint64Range(0, 200).Draw(t, "value"), wm+5))
				default:
					inputs[i] = append(inputs[i], record(rapid.Uint64Range(0, 200).Draw(t, "value")))
				}
			}
			if rapid.IntRange(0, 9).Draw(t, "end of the epoch") == 0 {
				inputs[i] = append(inputs[i], skip(determinant.Epoch(e)))
			} else {
				inputs[i] = append(inputs[i], barrier(determinant.Epoch(e)))
			}
		}
		inputs[i] = append(inputs[i], control(inflightlog.End), barrier(determinant.Epoch(epochs+1)))
	}
	return inputs
}

// supplyScript cuts the inputs into drawn batches, from the given positions on.
func (r *rig) supplyScript(t *rapid.T, inputs [][]inflightlog.Element, from []determinant.Cursor) {
	for i, elements := range inputs {
		batches := batchesOf(r, inflightlog.Origin, elements, func() bool { return rapid.IntRange(0, 3).Draw(t, "cut") == 0 })
		if from == nil {
			r.supply(i, batches)
			continue
		}
		for _, b := range batches {
			if b.End.Next <= from[i].Next {
				continue
			}
			if b.First < from[i].Next {
				var err error
				b, err = b.From(from[i].Next)
				require.NoError(r, err)
			}
			r.supply(i, []*inflightlog.Batch{b})
		}
	}
}

// live lets the world go its drawn way: batches arrive, time passes (and jumps back), calls complete, the task steps.
func (r *rig) live(t *rapid.T) {
	for range rapid.IntRange(0, 60).Draw(t, "events") {
		switch rapid.IntRange(0, 6).Draw(t, "event") {
		case 0, 1:
			r.arrive(rapid.IntRange(0, len(r.left)-1).Draw(t, "input"))
		case 2:
			r.now += int64(rapid.IntRange(-5, 12).Draw(t, "time"))
		case 3:
			if n := len(r.calls.pending); n > 0 {
				r.calls.complete(rapid.IntRange(0, n-1).Draw(t, "call"))
			}
		case 4:
			r.task.Abandoned(1)
		default:
			_, err := r.task.Step()
			require.NoError(r, err)
		}
	}
	r.settle()
	r.now += 50
	r.settle()
}

// bounds draws what must not matter to a replay.
func bounds(t *rapid.T) func(*Config) {
	elements, slice := rapid.IntRange(1, 9).Draw(t, "max elements"), rapid.IntRange(0, 3).Draw(t, "slice")
	return func(c *Config) { c.MaxElements, c.Slice = elements, slice }
}

var metamorphicVertices = []struct {
	name string
	make func(tester, int) vertex
}{{"process", curiousVertex}, {"async", askingVertex}}

// Replay of a recorded log gives byte-equal outputs and a byte-equal log, whatever the batches are, however many elements a
// step may take, and wherever Step returns.
func TestReplayGivesTheSameBytesWhateverTheBatching(t *testing.T) {
	for _, kind := range metamorphicVertices {
		t.Run(kind.name, func(t *testing.T) {
			v := kind.make(t, 3)
			rapid.Check(t, func(t *rapid.T) {
				inputs := drawScript(t, 3)
				first := newRig(t, v, bounds(t))
				first.supplyScript(t, inputs, nil)
				first.live(t)

				second := newRig(t, v, bounds(t), replaying(first.logBytes()))
				second.supplyScript(t, inputs, nil)
				second.now = first.now
				second.live(t)
				require.Equal(t, first.output(), second.output())
				require.Equal(t, first.logBytes(), second.logBytes())
				require.Equal(t, first.host.saved, withoutIncarnation(second.host.saved, 1))
				require.Equal(t, 1, second.host.replayed)
				require.Equal(t, first.task.Records(), second.task.Records())
			})
		})
	}
}

func withoutIncarnation(saved []savedState, inc determinant.Incarnation) []savedState {
	saved = slices.Clone(saved)
	for i := range saved {
		saved[i].meta.Incarnation = inc
	}
	return saved
}

// A log that ends anywhere, also in the middle of a step, is repeated and gone on from: what the second life adds, a third
// repeats.
func TestRecordingGoesOnWhereverTheLogEnds(t *testing.T) {
	for _, kind := range metamorphicVertices {
		t.Run(kind.name, func(t *testing.T) {
			v := kind.make(t, 2)
			rapid.Check(t, func(t *rapid.T) {
				inputs := drawScript(t, 2)
				first := newRig(t, v, bounds(t))
				first.supplyScript(t, inputs, nil)
				first.live(t)
				_, ends := first.logged()
				kept := first.logBytes()[:rapid.SampledFrom(append(ends, 0)).Draw(t, "end of the log")]

				second := newRig(t, v, bounds(t), replaying(kept))
				second.supplyScript(t, inputs, nil)
				second.live(t)
				require.Equal(t, kept, second.logBytes()[:len(kept)])
				require.True(t, second.task.Ended())

				third := newRig(t, v, bounds(t), replaying(second.logBytes()))
				third.supplyScript(t, inputs, nil)
				third.now = second.now
				third.live(t)
				require.Equal(t, second.output(), third.output())
				require.Equal(t, second.logBytes(), third.logBytes())
			})
		})
	}
}

// A snapshot contains what a restore needs: to go on from it equals never having stopped.
func TestRestoreFromASnapshotEqualsARunWithoutInterruption(t *testing.T) {
	for _, kind := range metamorphicVertices {
		t.Run(kind.name, func(t *testing.T) {
			v := kind.make(t, 2)
			rapid.Check(t, func(t *rapid.T) {
				inputs := drawScript(t, 2)
				first := newRig(t, v, bounds(t))
				first.supplyScript(t, inputs, nil)
				first.live(t)
				saved := rapid.SampledFrom(first.host.saved).Draw(t, "snapshot")

				second := newRig(t, v, restored(saved), replaying(first.logBytes()[saved.meta.Log:]), bounds(t))
				second.supplyScript(t, inputs, saved.meta.Inputs)
				second.now = first.now
				second.live(t)
				require.Equal(t, first.output(saved.meta.Outputs...), second.output())
				require.Equal(t, first.logBytes()[saved.meta.Log:], second.logBytes())
				require.Equal(t, first.task.Records(), second.task.Records())
				require.Equal(t, first.task.Ended(), second.task.Ended())
				for _, later := range second.host.saved {
					want := first.host.saved[slices.IndexFunc(first.host.saved, func(s savedState) bool { return s.meta.Epoch == later.meta.Epoch })]
					want.meta.Incarnation, want.meta.Base = later.meta.Incarnation, later.meta.Base
					require.Equal(t, want.meta, later.meta)
				}
			})
		})
	}
}
