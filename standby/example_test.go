package standby_test

import (
	"fmt"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/standby"
)

// A pipeline of three tasks whose sink keeps determinants.
func ExampleTopology() {
	t := &standby.Topology{
		Tasks: 3,
		Down:  [][]determinant.TaskID{{1}, {2}, nil},
		Sinks: []determinant.TaskID{2},
	}
	fmt.Println(t.Upstream(2, 1), t.Upstream(2, determinant.Full))
	one, _ := t.Recoverable([]bool{true, false, true}, 1)
	two, why := t.Recoverable([]bool{true, true, false}, 1)
	fmt.Println(one, two, why)
	fmt.Println(standby.AutoDepth(t, []determinant.WorkerID{1, 2, 2}, 1))
	// Output:
	// [1] [1 0]
	// true false a path of 2 hops from failed task 0 to live task 2 exceeds sharing depth 1
	// 2
}

// The caller puts what is proposed into its ledger and hands back what the ledger commits.
func ExampleDecider() {
	d := standby.NewDecider(standby.Config{
		Topology: &standby.Topology{Tasks: 1, Down: make([][]determinant.TaskID, 1)},
	}, standby.State{})
	var ledger []standby.Command
	step := func(ev standby.Event) {
		for _, e := range d.Step(ev) {
			if p, ok := e.(standby.Propose); ok {
				ledger = append(ledger, p.Command)
			}
		}
	}
	step(standby.Joined{Worker: 1})
	step(standby.Joined{Worker: 2})
	step(standby.Deploy{})
	step(standby.Committed{Command: ledger[0]})
	step(standby.Committed{Command: ledger[1]})
	fmt.Println(d.Task(0))
	step(standby.Dead{Workers: []determinant.WorkerID{1}})
	step(standby.Committed{Command: ledger[2]})
	fmt.Println(d.Task(0))
	// Output:
	// task 0 #1 on 1, standbys [2]
	// task 0 #2 on 2, recovering
}

// The host of the task applies a decision, hears two workers, and starts with the longest log.
func ExamplePromotion() {
	p := standby.NewPromotion(0, 2, mutation.Set(0))
	show := func(ev standby.PromotionEvent) {
		for _, e := range p.Step(ev) {
			fmt.Println(e)
		}
	}
	show(standby.Decided{Round: 1, Base: 4, Hear: []determinant.WorkerID{2, 3}, StateReady: true})
	show(standby.Answer{From: standby.FromWorker(2), Round: 1, Copy: causal.Copy{Base: 4, Bytes: []byte("ab")}})
	show(standby.Answer{From: standby.FromWorker(3), Round: 1, Copy: causal.Copy{Base: 0, Bytes: []byte("....abc")}})
	// Output:
	// ask worker 2 for task 0 #2 round 1
	// ask worker 3 for task 0 #2 round 1
	// merge 0:[4,7)
	// start task 0 with log [4,7)
}
