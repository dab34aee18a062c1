package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

func ExampleJSONL() {
	dir, _ := os.MkdirTemp("", "jsonl")
	defer os.RemoveAll(dir)
	_ = os.WriteFile(filepath.Join(dir, "bids.jsonl"), []byte("{\"price\":3}\n{\"price\":4}\n"), 0o666)
	type bid struct{ Price int }
	source := file.JSONL[bid](filepath.Join(dir, "*.jsonl"))
	splits, _ := source.Splits(context.Background())
	reader, _ := source.Open(context.Background(), splits[0], 12) // an offset that the reader gave earlier
	defer reader.Close()
	v, next, err := reader.Next()
	fmt.Println(v.Price, next, err)
	// Output: 4 24 <nil>
}

func ExampleSink() {
	dir, _ := os.MkdirTemp("", "sink")
	defer os.RemoveAll(dir)
	ctx := context.Background()
	sink := file.Sink(dir, file.SinkOptions{Identity: "example"})
	store, _ := sink.Open(ctx, 0, 1) // what follows is what the engine does
	defer store.Close()
	_, _ = store.Fence(ctx, operator.Fence{Incarnation: 1})
	_ = store.Write(ctx, 1, operator.StoreWrite{
		End:     determinant.Cursor{Next: 2, Epoch: 1, Bytes: 8},
		Records: [][]byte{[]byte(`{"n":1}`), []byte(`{"n":2}`)},
		Delta:   []byte("determinants"),
	})
	stored, _ := store.Fence(ctx, operator.Fence{Incarnation: 2}) // the first life is over
	shown, _ := os.ReadFile(filepath.Join(dir, "part-00000.jsonl"))
	fmt.Printf("%s%v %s\n", shown, stored.Cursor, stored.Deltas)
	fmt.Println(store.Write(ctx, 1, operator.StoreWrite{}))
	// Output:
	// {"n":1}
	// {"n":2}
	// 2@1(8,00000000) [determinants]
	// operator: the writer was fenced off by a later incarnation: incarnation 1 of task 0, now 2
}

func ExampleDeadLetters() {
	dir, _ := os.MkdirTemp("", "dead")
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "dead.jsonl")
	letters := file.DeadLetters(name)
	defer letters.Close()
	_ = letters.Put(file.DeadLetter{Operator: "parse", Channel: 1, Seq: 7, Err: "no price", Record: []byte("?")})
	shown, _ := os.ReadFile(name)
	fmt.Printf("%s", shown)
	// Output: {"operator":"parse","channel":1,"seq":7,"error":"no price","text":"?"}
}
