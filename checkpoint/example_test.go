package checkpoint_test

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
)

// counts is a task's state: a table of counters.
type counts map[string]string

func (counts) Table() string { return "counts" }

func (c counts) Entries(yield func(key, value []byte, deleted bool) error) error {
	for k, v := range c { // in any order: the image is sorted
		if err := yield([]byte(k), []byte(v), v == ""); err != nil {
			return err
		}
	}
	return nil
}

// A store keeps an image until it is committed, and restores what is committed.
func ExampleStore() {
	store, err := checkpoint.OpenStore("worker-1", checkpoint.StoreOptions{FS: vfs.NewMem(), Identity: "word count"})
	if err != nil {
		panic(err)
	}
	defer func() { _ = store.Close() }()
	for e, state := range []counts{{"apple": "1", "pear": "1"}, {"apple": "2", "pear": ""}} {
		epoch := determinant.Epoch(e + 1)
		meta := checkpoint.Meta{Task: 3, Incarnation: 1, Epoch: epoch, Base: epoch - 1}
		image, err := checkpoint.Encode(meta, false, []checkpoint.Frozen{state})
		if err != nil {
			panic(err)
		}
		if err := store.Put(image); err != nil {
			panic(err)
		}
		if err := store.Commit(epoch, []checkpoint.Life{{Task: 3, Incarnation: 1}}); err != nil {
			panic(err)
		}
	}
	var meta checkpoint.Meta
	err = store.Restore(3, 2, &meta, func(table string, key, value []byte) error {
		fmt.Printf("%s %s=%s\n", table, key, value)
		return nil
	})
	fmt.Println("checkpoint", meta.Epoch, err)
	// Output:
	// counts apple=2
	// checkpoint 2 <nil>
}

// A Coordinator proposes to the ledger, hears what the ledger has committed, and triggers the sources.
func ExampleCoordinator() {
	state := checkpoint.NewState(2, determinant.ExactlyOnce, determinant.Full)
	c := checkpoint.NewCoordinator(checkpoint.Config{Sources: []determinant.TaskID{0}}, state)
	events := []checkpoint.Event{
		checkpoint.Leader{},
		checkpoint.Request{},
		checkpoint.Committed{Command: checkpoint.Start{Epoch: 1, Depth: determinant.Full}},
		checkpoint.Ack{Task: 0, Incarnation: 1, Epoch: 1, Worker: 1, Primary: true, Log: 40},
		checkpoint.Ack{Task: 1, Incarnation: 1, Epoch: 1, Worker: 2, Primary: true, Log: 25},
	}
	for _, ev := range events {
		for _, effect := range c.Step(ev) {
			switch e := effect.(type) {
			case checkpoint.Propose:
				fmt.Println("propose", e.Command)
			case checkpoint.Trigger:
				fmt.Println("trigger task", e.Task, "epoch", e.Epoch)
			}
		}
	}
	// Output:
	// propose start 1, then exactly-once depth full
	// trigger task 0 epoch 1
	// propose complete 1: 0/1@40[1] 1/1@25[2]
}
