package causal_test

import (
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
)

func ExampleLog() {
	l := causal.NewLog(4096)
	l.Append([]byte("three"))
	l.Append([]byte(" words"))
	l.Truncate(4102)
	p, err := l.Read(nil, l.Base(), l.End())
	fmt.Printf("[%d, %d) %q %v\n", l.Base(), l.End(), p, err)
	_, err = l.Read(nil, 4096, l.End())
	fmt.Println(errors.Is(err, causal.ErrTruncated))
	// Output:
	// [4102, 4107) "words" <nil>
	// true
}

func ExampleLog_Merge() {
	l := causal.NewLog(0)
	fmt.Println(l.Merge(0, []byte("abc"), false), l.End())
	fmt.Println(l.Merge(1, []byte("bcde"), false), l.End())
	fmt.Println(l.Merge(1, []byte("xy"), false), l.End())
	fmt.Println(l.Merge(9, []byte("j"), false), l.End())
	fmt.Println(l.Merge(9, []byte("j"), true), l.Base())
	// Output:
	// <nil> 3
	// <nil> 5
	// causal: copies of one log differ: merge of [1, 3) into [0, 5) 5
	// causal: gap: merge at 9, end 5 5
	// <nil> 9
}

func ExampleStore_Delta() {
	here, peer := causal.NewStore(2), causal.NewStore(2)
	sent := make([]determinant.LogOffset, 2) // what the peer has
	downstreamFirst := []determinant.TaskID{1, 0}

	here.Log(0).Append([]byte("upstream"))
	here.Log(1).Append([]byte("downstream"))
	delta := here.Delta(nil, downstreamFirst, sent)
	fmt.Println(len(delta), peer.Merge(delta), peer.Ends())
	fmt.Println(len(here.Delta(nil, downstreamFirst, sent)))
	// Output:
	// 31 <nil> [8 10]
	// 0
}

func ExampleDecodeDelta() {
	s := causal.NewStore(1)
	s.Log(0).Append([]byte("bytes"))
	delta := s.Delta(nil, []determinant.TaskID{0}, make([]determinant.LogOffset, 1))
	err := causal.DecodeDelta(delta, func(t determinant.TaskID, from determinant.LogOffset, covered bool, p []byte) error {
		fmt.Printf("task %d from %d covered=%v %q\n", t, from, covered, p)
		return nil
	})
	fmt.Println(err)
	// Output:
	// task 0 from 0 covered=false "bytes"
	// <nil>
}

func ExampleStore_Copy() {
	s := causal.NewStore(1)
	s.Reset(0, 100).Append([]byte("bytes"))
	c := s.Copy(0)
	fmt.Printf("task %d [%d, %d) %q\n", c.Task, c.Base, c.End(), c.Bytes)
	// Output: task 0 [100, 105) "bytes"
}

// always proposes the same input.
type always struct{}

func (always) Propose() (determinant.Determinant, bool, error) {
	return determinant.Determinant{Kind: determinant.KindInput, Channel: 1, N: 100}, true, nil
}

func ExampleRecorder() {
	l := causal.NewLog(0)
	var c causal.Choices = causal.NewRecorder(l, determinant.Encoder{}, causal.Options{})
	header, ok, err := c.Next(always{})
	fmt.Println(&header, ok, err)
	now, err := c.Choose(determinant.KindTime, func() determinant.Determinant {
		return determinant.Determinant{Kind: determinant.KindTime, Time: 1000}
	})
	fmt.Println(&now, err)
	p, _ := l.Read(nil, 0, l.End())
	fmt.Printf("% x\n", p)
	// Output:
	// input channel=1 n=100 true <nil>
	// time time=1000 <nil>
	// 11 64 f7 d9 07
}

func ExampleReplayer() {
	known := []byte{0x11, 0x64} // input channel=1 n=100
	l := causal.NewLog(0)
	if err := l.Merge(0, known, false); err != nil {
		fmt.Println(err)
		return
	}
	replay := causal.NewReplayer(0, known)
	var c causal.Choices = replay
	for range 2 {
		if replay.Done() && c == causal.Choices(replay) {
			c = replay.Recorder(l, causal.Options{})
		}
		header, _, err := c.Next(always{})
		fmt.Println(&header, err, l.End())
	}
	// Output:
	// input channel=1 n=100 <nil> 2
	// input channel=1 n=100 <nil> 4
}

func ExampleUnlogged() {
	var c causal.Choices = &causal.Unlogged{At: 4096}
	header, ok, err := c.Next(always{})
	fmt.Println(&header, ok, err, c.Offset())
	// Output: input channel=1 n=100 true <nil> 4096
}

func ExampleDivergence() {
	r := causal.NewReplayer(0, []byte{0x11, 0x64})
	_, err := r.Choose(determinant.KindRandom, nil)
	var d *causal.Divergence
	if errors.As(err, &d) {
		d.Task, d.Vertex = 7, "count"
	}
	fmt.Println(err)
	// Output: causal: divergence in task 7 (count), epoch 0, step 0, log offset 0: expected input channel=1 n=100, got random
}
