package causal_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	. "github.com/understudy-stream/understudy/causal"
)

// TestNewHistories has tasks move between workers and begin anew, without their former determinants, while workers tell each
// other what they know, also those who have not heard of the move. A merge never fails, whoever knows of a newer history has
// forgotten the older ones, and the newest life's own log is its own.
func TestNewHistories(t *testing.T) {
	const tasks, workers = 2, 3
	rapid.Check(t, func(t *rapid.T) {
		var stores [workers]*Store
		var cursors [workers][workers][]offset
		for w := range workers {
			stores[w] = NewStore(tasks)
			for peer := range workers {
				cursors[w][peer] = make([]offset, tasks)
			}
		}
		const checkpoint = offset(50)
		var home, lives [tasks]int
		var base [tasks]offset
		for x := range tasks {
			for _, s := range stores {
				s.Reset(task(x), checkpoint)
			}
			base[x] = checkpoint
			grow(stores[0], task(x), 1)
		}
		worker, id := rapid.IntRange(0, workers-1), rapid.IntRange(0, tasks-1)
		t.Repeat(map[string]func(*rapid.T){
			"grow": func(t *rapid.T) {
				x := id.Draw(t, "task")
				grow(stores[home[x]], task(x), offset(rapid.Uint64Range(1, 9000).Draw(t, "bytes")))
			},
			"tell": func(t *rapid.T) {
				from, to := worker.Draw(t, "from"), worker.Draw(t, "to")
				if err := stores[to].Merge(stores[from].Delta(nil, []task{1, 0}, cursors[from][to])); err != nil {
					t.Fatalf("%d tells %d: %v", from, to, err)
				}
			},
			"reconnect": func(t *rapid.T) {
				from, to := worker.Draw(t, "from"), worker.Draw(t, "to")
				cursors[from][to] = stores[to].Ends()
			},
			"begin anew": func(t *rapid.T) {
				x := id.Draw(t, "task")
				former := home[x]
				home[x] = worker.Draw(t, "worker")
				lives[x]++
				var ok bool
				if base[x], ok = checkpoint.Anew(uint64(lives[x])); !ok {
					t.Fatal("no offsets are left")
				}
				if home[x] != former && rapid.Bool().Draw(t, "the former home has heard of it") {
					stores[former].Log(task(x)).SetOwn(false)
				}
				stores[home[x]].Reset(task(x), base[x]).SetOwn(true)
			},
			"": func(t *rapid.T) {
				for x := range tasks {
					own := stores[home[x]].Log(task(x))
					if own.Base() != base[x] || !own.Own() {
						t.Fatalf("the log of task %d begins at %d at its home, its history at %d", x, own.Base(), base[x])
					}
					for w, s := range stores {
						l := s.Log(task(x))
						checkContent(t, l, task(x), l.Base(), l.End())
						if l.End() > base[x] && (l.Base() != base[x] || l.End() > own.End()) {
							t.Fatalf("worker %d holds [%d, %d) of a history [%d, %d)", w, l.Base(), l.End(), base[x], own.End())
						}
					}
				}
			},
		})
	})
}

// What is not of another history is checked as ever: a log that is appended to here is not extended by others.
func TestAnOwnLogIsNotExtendedWithinItsHistory(t *testing.T) {
	l := NewLog(10)
	l.Append(content(1, 10, 20))
	for _, from := range []offset{15, 20, 1 << 20} {
		if err := l.Merge(from, content(1, from, from+100), true); !errors.Is(err, ErrOwned) {
			t.Errorf("merge at %d: %v", from, err)
		}
	}
	later, _ := offset(10).Anew(1)
	if err := l.Merge(later, content(1, later, later+100), true); err != nil {
		t.Error(err)
	}
	checkContent(t, l, 1, 10, 20)
}
