package main

import (
	"context"
	"log"
	"strings"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

func main() {
	job := operator.NewJob("wordcount")
	words := operator.KeyBy(operator.FlatMap(operator.From(job, "in", file.Lines("*.txt")), "split", func(_ operator.Context, l file.Line, emit func(string)) error {
		for word := range strings.FieldsSeq(strings.ToLower(l.Text)) {
			emit(word)
		}
		return nil
	}), func(word string) string { return word })
	counts := operator.Aggregate(words, "count", func(c map[string]int, w string) (map[string]int, error) { return map[string]int{w: c[w] + 1}, nil })
	operator.To(counts, "out", file.Sink("counts", file.SinkOptions{}), operator.WithCodec(operator.JSON[map[string]int]()))
	log.Println(understudy.Run(context.Background(), job, understudy.Options{StateDir: "counts.state", Parallelism: 2}))
}
