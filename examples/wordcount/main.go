package main

import (
	"context"
	"log"
	"os"
	"strings"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: wordcount GLOB DIRECTORY")
	}
	job := operator.NewJob("wordcount")
	lines := operator.From(job, "lines", file.Lines(os.Args[1]))
	words := operator.FlatMap(lines, "split", func(_ operator.Context, l file.Line, emit func(string)) error {
		for word := range strings.FieldsSeq(strings.ToLower(l.Text)) {
			emit(word)
		}
		return nil
	})
	type count map[string]int // {"the":17}
	counts := operator.Aggregate(operator.KeyBy(words, func(w string) string { return w }), "count",
		func(c count, w string) (count, error) { return count{w: c[w] + 1}, nil })
	operator.To(counts, "output", file.Sink(os.Args[2], file.SinkOptions{}), operator.WithCodec(operator.JSON[count]()))
	sum, err := understudy.Run(context.Background(), job, understudy.Options{Parallelism: 2, StateDir: os.Args[2] + ".state"})
	if err != nil {
		log.Fatal(err)
	}
	log.Println(sum.RecordsIn, "lines,", sum.RecordsOut, "counts")
}
