package understudy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// A job counts the words of a file while its tasks are killed, and shows each count once.
func Example() {
	dir, err := os.MkdirTemp("", "understudy")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	in, out := filepath.Join(dir, "in.txt"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte("to\nbe\nor\nnot\nto\nbe\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	type count struct {
		Word  string
		Count int
	}
	job := operator.NewJob("count")
	words := operator.KeyBy(operator.From(job, "words", file.Lines(in)), func(l file.Line) string { return l.Text })
	counts := operator.Aggregate(words, "count", func(c count, l file.Line) (count, error) {
		return count{Word: l.Text, Count: c.Count + 1}, nil
	})
	operator.To(counts, "output", file.Sink(out, file.SinkOptions{}), operator.WithCodec(operator.JSON[count]()))

	chaos, err := understudy.ParseChaos("kill=20ms,target=task")
	if err != nil {
		fmt.Println(err)
		return
	}
	sum, err := understudy.Run(context.Background(), job, understudy.Options{Chaos: chaos})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sum.RecordsIn, "words")
	shown, err := os.ReadFile(filepath.Join(out, "part-00000.jsonl"))
	fmt.Print(string(shown))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// 6 words
	// {"Word":"to","Count":1}
	// {"Word":"be","Count":1}
	// {"Word":"or","Count":1}
	// {"Word":"not","Count":1}
	// {"Word":"to","Count":2}
	// {"Word":"be","Count":2}
}
