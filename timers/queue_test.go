package timers_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	. "github.com/understudy-stream/understudy/timers"
)

// model is a queue so simple that it is right: a slice that is searched from end to end.
type model struct {
	set    []Timer
	frozen []Timer
	next   uint64

	number  uint64           // of the last freeze
	written map[Timer]uint64 // of each of frozen, the freeze that reported it last
	again   []Timer          // to be reported again
}

func same(a, b Timer) bool { return a.Time == b.Time && a.Key == b.Key && a.Tag == b.Tag }

func find(set []Timer, t Timer) int {
	return slices.IndexFunc(set, func(o Timer) bool { return same(o, t) })
}

func firingOrder(a, b Timer) int {
	return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Reg, b.Reg))
}

func (m *model) register(t Timer) bool {
	if find(m.set, t) >= 0 {
		return false
	}
	t.Reg = m.next
	m.next++
	m.set = append(m.set, t)
	return true
}

func (m *model) delete(t Timer) bool {
	i := find(m.set, t)
	if i >= 0 {
		m.set = slices.Delete(m.set, i, i+1)
	}
	return i >= 0
}

func (m *model) pop(until int64, before uint64) (Timer, bool) {
	slices.SortFunc(m.set, firingOrder)
	for i, t := range m.set {
		if t.Time <= until && t.Reg < before {
			m.set = slices.Delete(m.set, i, i+1)
			return t, true
		}
	}
	return Timer{}, false
}

func inOrder(changes []Change) {
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Tag, b.Tag))
	})
}

func (m *model) freeze() (changes []Change, replaced []uint64) {
	changes = []Change{}
	m.number++
	written := map[Timer]uint64{}
	for _, t := range m.set {
		if written[t] = m.number; !slices.Contains(m.frozen, t) || slices.Contains(m.again, t) {
			changes = append(changes, Change{Timer: t})
		} else {
			written[t] = m.written[t]
		}
	}
	for _, t := range m.frozen {
		if find(m.set, t) < 0 {
			changes = append(changes, Change{Timer: t, Removed: true})
		}
		if now, is := written[t]; !is || now != m.written[t] {
			replaced = append(replaced, m.written[t])
		}
	}
	inOrder(changes)
	m.frozen, m.written, m.again = slices.Clone(m.set), written, nil
	return changes, replaced
}

// freeze is for those who do not want to know what is replaced.
func freeze(q *Queue) []Change { return q.Freeze(1, func(uint64) {}) }

// apply makes what a checkpoint store makes of a freeze.
func apply(stored []Timer, changes []Change) []Timer {
	for _, c := range changes {
		if i := find(stored, c.Timer); i >= 0 {
			stored = slices.Delete(stored, i, i+1)
		}
		if !c.Removed {
			stored = append(stored, c.Timer)
		}
	}
	return stored
}

func TestQueueIsLikeTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q, m := NewQueue(), &model{}
		var stored []Timer
		var replaced []uint64 // since the last freeze
		before := uint64(0)
		timer := func(t *rapid.T) Timer {
			return Timer{
				Time: rapid.Int64Range(0, 6).Draw(t, "time"),
				Key:  rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "key"),
				Tag:  rapid.SampledFrom([]string{"", "w"}).Draw(t, "tag"),
			}
		}
		pop := func(t *rapid.T) {
			until := rapid.Int64Range(0, 7).Draw(t, "until")
			got, gotOK := q.Pop(until, before)
			want, wantOK := m.pop(until, before)
			if got != want || gotOK != wantOK {
				t.Fatalf("popped %+v %v, want %+v %v", got, gotOK, want, wantOK)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"register": func(t *rapid.T) {
				x := timer(t)
				if got, want := q.Register(x.Time, x.Key, x.Tag), m.register(x); got != want {
					t.Fatalf("registered %+v: %v, want %v", x, got, want)
				}
			},
			"delete": func(t *rapid.T) {
				x := timer(t)
				if got, want := q.Delete(x.Time, x.Key, x.Tag), m.delete(x); got != want {
					t.Fatalf("deleted %+v: %v, want %v", x, got, want)
				}
			},
			"fire": func(*rapid.T) { before = q.Mark() },
			"back": func(t *rapid.T) { before = rapid.Uint64Range(0, q.Mark()).Draw(t, "before") },
			"pop":  pop,
			"pop2": pop,
			"again": func(t *rapid.T) {
				until, places := rapid.Uint64Range(0, m.number).Draw(t, "until"), rapid.IntRange(1, 9).Draw(t, "places")
				note := func(written uint64) { replaced = append(replaced, written) }
				for at := q.Again(0, places, until, note); at > 0; {
					at = q.Again(at, places, until, note)
				}
				for _, x := range m.frozen {
					if slices.Contains(m.set, x) && m.written[x] <= until {
						m.again = append(m.again, x)
					}
				}
			},
			"freeze": func(t *rapid.T) {
				want, wantReplaced := m.freeze()
				got := q.Freeze(m.number, func(written uint64) { replaced = append(replaced, written) })
				inOrder(got)
				slices.Sort(replaced)
				slices.Sort(wantReplaced)
				defer func() { replaced = nil }()
				if !slices.Equal(got, want) || !slices.Equal(replaced, wantReplaced) {
					t.Fatalf("froze %+v, replacing %v, want %+v, %v", got, replaced, want, wantReplaced)
				}
				stored = apply(stored, got)
			},
			"restore": func(t *rapid.T) {
				stored = apply(stored, freeze(q))
				q = NewQueue()
				for _, i := range rapid.Permutation(indices(len(stored))).Draw(t, "order") {
					q.Restore(stored[i])
				}
				m.freeze()
				m.written, replaced = map[Timer]uint64{}, nil
				m.next = 0
				for _, x := range m.set {
					m.next = max(m.next, x.Reg+1)
				}
				before = 0
			},
			"": func(t *rapid.T) {
				if q.Len() != len(m.set) || q.Mark() != m.next {
					t.Fatalf("length %d, mark %d, want %d, %d", q.Len(), q.Mark(), len(m.set), m.next)
				}
				slices.SortFunc(m.set, firingOrder)
				if next, ok := q.Next(); ok != (len(m.set) > 0) || ok && next != m.set[0].Time {
					t.Fatalf("next %d %v, want the first of %+v", next, ok, m.set)
				}
			},
		})
	})
}

func indices(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestOneFiringDoesNotFireWhatItRegisters(t *testing.T) {
	q := NewQueue()
	q.Register(10, "k", "first")
	var fired []string
	for step := range 3 {
		for bound := q.Mark(); ; {
			timer, ok := q.Pop(10, bound)
			if !ok {
				break
			}
			fired = append(fired, fmt.Sprint(step, timer.Tag))
			q.Register(5, "k", fmt.Sprint("from", step)) // due at once, and earlier in order
		}
	}
	want := []string{"0first", "1from0", "2from1"}
	if !slices.Equal(fired, want) {
		t.Errorf("fired %v, want %v", fired, want)
	}
}

func TestHeldTimersCanBeDeleted(t *testing.T) {
	q := NewQueue()
	bound := q.Mark()
	q.Register(1, "k", "a")
	q.Register(2, "k", "b")
	if timer, ok := q.Pop(9, bound); ok {
		t.Fatalf("fired %+v", timer)
	}
	if next, ok := q.Next(); !ok || next != 1 {
		t.Errorf("next %d %v", next, ok)
	}
	if !q.Delete(1, "k", "a") || q.Len() != 1 {
		t.Error("not deleted")
	}
	if timer, ok := q.Pop(9, q.Mark()); !ok || timer.Tag != "b" {
		t.Errorf("fired %+v %v", timer, ok)
	}
	if _, ok := q.Next(); ok || q.Len() != 0 {
		t.Error("not empty")
	}
}

// A timer of a checkpoint fires in its order even if timers of its time were held back before it came.
func TestRestoredTimersAreNotHeldBack(t *testing.T) {
	q := NewQueue()
	q.Restore(Timer{Time: 1, Key: "first", Reg: 5})
	bound := q.Mark()
	q.Register(1, "second", "")
	q.Pop(1, bound)
	if timer, ok := q.Pop(1, bound); ok {
		t.Fatalf("fired %+v", timer)
	}
	q.Restore(Timer{Time: 1, Key: "third", Reg: 2})
	if timer, ok := q.Pop(1, bound); !ok || timer.Key != "third" {
		t.Errorf("fired %+v %v", timer, ok)
	}
}

func TestRestoringTwiceIsABug(t *testing.T) {
	q := NewQueue()
	q.Restore(Timer{Time: 1, Reg: 7})
	if q.Mark() != 8 {
		t.Errorf("mark %d", q.Mark())
	}
	defer func() {
		if recover() == nil {
			t.Error("restored")
		}
	}()
	q.Restore(Timer{Time: 1, Reg: 8})
}

// Setting and deleting in turn, before or after a freeze, takes no memory.
func TestChurnTakesNoMemory(t *testing.T) {
	q := NewQueue()
	for i := range int64(100) {
		q.Register(i, "stays", "")
	}
	freeze(q)
	churn := func() {
		for i := range int64(200) { // at times that others have, too, and at times that nobody has
			q.Register(i, "k", "")
		}
		for i := range int64(200) {
			q.Delete(i, "k", "")
		}
	}
	churn()
	if n := testing.AllocsPerRun(1000, churn); n > 0.1 {
		t.Errorf("%v allocations for 200 timers that come and go", n)
	}
	if changes := freeze(q); len(changes) != 0 {
		t.Errorf("froze %v", changes)
	}
}

func TestFreezeTakesTimeForChangesOnly(t *testing.T) {
	q := NewQueue()
	for i := range int64(100_000) {
		q.Register(i, "k", "")
	}
	if n := len(freeze(q)); n != 100_000 {
		t.Fatal(n)
	}
	q.Delete(5, "k", "")
	q.Register(5, "l", "")
	var changes []Change
	if n := testing.AllocsPerRun(1, func() { changes = append(changes, freeze(q)...) }); n > 4 {
		t.Errorf("%v allocations", n)
	}
	inOrder(changes)
	want := []Change{{Timer{5, "k", "", 5}, true}, {Timer{5, "l", "", 100_000}, false}}
	if !slices.Equal(changes, want) {
		t.Errorf("froze %v, want %v", changes, want)
	}
}

// Timers of one time, as windows of many keys set them: each is registered, frozen, and fires.
func BenchmarkTogether(b *testing.B) {
	keys := make([]string, 50_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("key%05d", i*7919%len(keys))
	}
	b.ReportAllocs()
	q := NewQueue()
	for at := int64(1); b.Loop(); at++ {
		for _, key := range keys {
			q.Register(at, key, "")
		}
		freeze(q)
		for range keys {
			if _, ok := q.Pop(at, q.Mark()); !ok {
				b.Fatal("empty")
			}
		}
		freeze(q)
	}
}

func BenchmarkRegisterPop(b *testing.B) {
	for _, size := range []int64{100, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("set=%d", size), func(b *testing.B) {
			q := NewQueue()
			keys := make([]string, 1024)
			for i := range keys {
				keys[i] = fmt.Sprintf("key%05d", i)
			}
			for i := range size {
				q.Register(i*7919%size, keys[i%1024], "w")
			}
			freeze(q)
			at := size
			b.ReportAllocs()
			for b.Loop() {
				timer, ok := q.Pop(at, q.Mark())
				if !ok {
					b.Fatal("empty")
				}
				at++
				if !q.Register(at, timer.Key, "w") {
					b.Fatal("twice")
				}
				if at%65536 == 0 {
					freeze(q)
				}
			}
		})
	}
}
