package lint

import "testing"

func TestChoicesPlantedClock(t *testing.T) {
	const src = `package p

import clock "time"

type wait struct{ time string }

func (w *wait) F(d clock.Duration) clock.Duration {
	now := clock.Now
	_ = w.time
	<-clock.After(d)
	return clock.Since(now()) + clock.Second
}

func shadow(clock interface{ Now() int }) int { return clock.Now() }
`
	wantFindings(t, checkChoices(plant(t, files{
		"timers/x.go":      src,
		"timers/x_test.go": src,
		"transport/x.go":   src,
		"standby/dot.go":   "package standby\n\nimport . \"time\"\n\nvar _ = Now\n",
	})),
		"standby/dot.go:3: time is imported without a name",
		"timers/x.go:8: in (*wait).F: time.Now: the time is a determinant",
		"timers/x.go:10: in (*wait).F: time.After",
		"timers/x.go:11: in (*wait).F: time.Since",
	)
}

func TestChoicesPlantedEveryClockName(t *testing.T) {
	for _, name := range []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"} {
		wantFindings(t, checkChoices(plant(t, files{
			"task/x.go": "package task\n\nimport \"time\"\n\nvar _ = time." + name + "\n",
		})), "task/x.go:5: time."+name)
	}
}

func TestChoicesPlantedRandomness(t *testing.T) {
	wantFindings(t, checkChoices(plant(t, files{
		"causal/v1.go": `package causal

import (
	"hash/maphash"
	"math/rand"
)

func F(r *rand.Rand) int { return r.Intn(3) + rand.New(rand.NewSource(1)).Intn(3) }
func G() int             { return rand.Intn(3) }
func H() maphash.Seed    { return maphash.MakeSeed() }
`,
		"operator/v2.go": `package operator

import "math/rand/v2"

func F(s rand.Source) int { return rand.New(s).IntN(3) + rand.New(rand.NewPCG(1, 2)).IntN(3) }
func G() int              { return rand.N(3) }
func H(b []int)           { rand.Shuffle(3, func(i, j int) {}) }
`,
		"task/crypto.go": "package task\n\nimport \"crypto/rand\"\n\nvar _ = rand.Read\n",
	})),
		"causal/v1.go:9: in G: math/rand.Intn: the seed is a determinant",
		"causal/v1.go:10: in H: hash/maphash.MakeSeed",
		"causal/v1.go:10: in H: hash/maphash.Seed",
		"operator/v2.go:6: in G: math/rand/v2.N",
		"operator/v2.go:7: in H: math/rand/v2.Shuffle",
		"task/crypto.go:5: crypto/rand.Read",
	)
}

func TestChoicesPlantedConcurrency(t *testing.T) {
	wantFindings(t, checkChoices(plant(t, files{"task/inner/x.go": `package inner

func F(a, b chan int) {
	go F(a, b)
	select {
	case <-a:
	default:
	}
	select {
	case <-a:
	case b <- 1:
	}
	func() {
		select {
		case <-a:
		case b <- 1:
		default:
		}
	}()
}
`})),
		"task/inner/x.go:4: in F: go statement",
		"task/inner/x.go:9: in F: select over 2 channels",
		"task/inner/x.go:14: in F: select over 2 channels",
	)
}

func TestOrderPlantedRanges(t *testing.T) {
	tr, dir := plantOnDisk(t, files{
		"state/state.go": "package state\n\ntype Table map[string]int\n",
		"operator/x.go": `package operator

import "example.com/m/state"

type box struct{ in map[int]int }

func F(t state.Table, b box, s []int) {
	for k := range t {
		_ = k
	}
	for range b.in {
	}
	for range s {
	}
	for range 3 {
	}
	for range t { // sorted: a count has no order
	}
	//lint:sorted summing has no order
	for range t {
	}
	// The sum below is the same in any order.
	// sorted: addition commutes
	// as everyone knows.
	for range t {
	}
	for range t { // sorted:
	}
	for range t { // unsorted: this is no excuse
	}
	_ = s // sorted: stands at the end of the line before
	for range t {
	}
}

func G[M ~map[K]V, K comparable, V any](m M) {
	for range m {
	}
}
`,
	})
	found, err := checkOrder(tr, dir)
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, found,
		"operator/x.go:8: in F: range over example.com/m/state.Table",
		"operator/x.go:11: in F: range over map[int]int",
		"operator/x.go:27: in F: range over",
		"operator/x.go:29: in F: range over",
		"operator/x.go:32: in F: range over",
		"operator/x.go:37: in G: range over M",
	)
}

func TestOrderPlantedCalls(t *testing.T) {
	tr, dir := plantOnDisk(t, files{"standby/x.go": `package standby

import (
	"maps"
	"slices"
	"sync"
)

func F(m map[int]int, wg *sync.WaitGroup, sm *sync.Map) []int {
	wg.Go(func() {})
	sm.Range(func(k, v any) bool { return true })
	for range maps.Keys(m) {
	}
	return slices.Concat(slices.Sorted(maps.Keys(m)), slices.Collect(maps.Values(m)))
}
`})
	found, err := checkOrder(tr, dir)
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, found,
		"standby/x.go:10: in F: (*sync.WaitGroup).Go starts a goroutine",
		"standby/x.go:11: in F: (*sync.Map).Range visits",
		"standby/x.go:12: in F: maps.Keys yields",
		"standby/x.go:14: in F: maps.Values yields",
	)
}

// What the lint cannot see, it must not pass over in silence.
func TestOrderPlantedBlindSpots(t *testing.T) {
	tr, dir := plantOnDisk(t, files{
		"broken/x.go": "package broken\n\nvar X int = \"\"\n",
		"causal/x.go": "package causal\n\nimport \"example.com/m/broken\"\n\nvar _ = broken.X\n",
		"timers/x.go": "package timers\n\nfunc F() { undefined() }\n",
		"task/x.go":   "//go:build never\n\npackage task\n",
		"task/y.go":   "package task\n",
	})
	found, err := checkOrder(tr, dir)
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, found,
		"causal: cannot be checked: causal/x.go:3:8: could not import example.com/m/broken",
		"task/x.go: is left out of the build",
		"timers: cannot be checked: timers/x.go:3:12: undefined: undefined",
	)
}

// A tree in which none of the packages exists yet is in order.
func TestOrderOfNothing(t *testing.T) {
	tr, dir := plantOnDisk(t, files{"verify/x.go": "package verify\n"})
	found, err := checkOrder(tr, dir)
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, found)
}
