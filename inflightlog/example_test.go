package inflightlog_test

import (
	"fmt"

	"github.com/understudy-stream/understudy/inflightlog"
)

// A task sends two records, its consumer takes them, loses them, and asks for them again.
func ExampleLog() {
	l := inflightlog.NewLog(inflightlog.Origin, inflightlog.Options{Retain: true})
	l.Record(1000, true, []byte("a"))
	l.Record(2000, true, []byte("b"))
	l.Commit() // the input element that caused both is done
	l.Seal()   // the task has nothing else to do

	for range 2 {
		if err := l.Subscribe(inflightlog.Origin); err != nil {
			fmt.Println(err)
			return
		}
		b, err := l.Next(-1)
		if err != nil {
			fmt.Println(err)
			return
		}
		var e inflightlog.Element
		for at := 0; at < len(b.Payload); {
			n, err := inflightlog.Decode(b.Payload[at:], &e)
			if err != nil {
				fmt.Println(err)
				return
			}
			fmt.Printf("%v %d %s\n", e.Kind, e.Time, e.Payload)
			at += n
		}
	}
	l.Control(inflightlog.Element{Kind: inflightlog.Barrier, Epoch: 1})
	l.Truncate(1) // checkpoint 1 is committed
	fmt.Println(l.Subscribe(inflightlog.Origin))
	// Output:
	// record 1000 a
	// record 2000 b
	// record 1000 a
	// record 2000 b
	// inflightlog: position is below what the log holds: channel 0: consumer is at 0@1(0,00000000), log starts at 3@2(0,00000000)
}

// All logs of a worker share a budget; what does not fit into memory goes to segment files.
func ExampleBudget() {
	b := inflightlog.NewBudget(1<<10, 0, 1<<10, nil)
	l := inflightlog.NewLog(inflightlog.Origin, inflightlog.Options{Retain: true, Budget: b})
	for !b.Exhausted() {
		l.Record(0, false, make([]byte, 500))
		l.Commit()
		l.Seal()
		memory, _ := b.Used()
		fmt.Println(memory, b.Full(), b.Exhausted())
	}
	// Output:
	// 759 false false
	// 1518 true false
	// 2277 true true
}
