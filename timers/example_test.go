package timers_test

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/timers"
)

func ExampleQueue() {
	q := timers.NewQueue()
	q.Register(2000, "bob", "reminder")
	q.Register(1000, "bob", "reminder")
	q.Register(1000, "ann", "reminder")
	now := int64(1500)
	for bound := q.Mark(); ; {
		t, due := q.Pop(now, bound)
		if !due {
			break
		}
		fmt.Println(t.Time, t.Key)
		q.Register(now, t.Key, "again") // due, but for the next firing
	}
	fmt.Println(q.Next())
	// Output:
	// 1000 bob
	// 1000 ann
	// 1500 true
}

func ExampleQueue_Freeze() {
	q := timers.NewQueue()
	q.Restore(timers.Timer{Time: 1000, Key: "ann", Reg: 4})
	q.Register(3000, "bob", "")
	q.Register(2000, "cid", "")
	q.Delete(2000, "cid", "")
	q.Delete(1000, "ann", "")
	changes := q.Freeze(1, func(uint64) {})
	slices.SortFunc(changes, func(a, b timers.Change) int { return cmp.Compare(a.Time, b.Time) })
	for _, c := range changes {
		fmt.Println(c.Time, c.Key, c.Reg, c.Removed)
	}
	// Output:
	// 1000 ann 4 true
	// 3000 bob 5 false
}
