package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"time"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/operator"
)

const n = 200_000

// row is a number with a random one.
type row struct {
	Number uint64
	Random uint64
}

func main() {
	out := &table{partitions: map[int]*partition{}}
	job := operator.NewJob("own sink")
	all := operator.From(job, "numbers", numbers{n: n})
	drawn := operator.Map(operator.Rebalanced(all), "draw", func(ctx operator.Context, v uint64) (row, error) {
		return row{Number: v, Random: ctx.Rand().Uint64()}, nil
	})
	operator.To(operator.Rebalanced(drawn), "rows", out, operator.WithCodec(operator.JSON[row]()))
	sum, err := understudy.Run(context.Background(), job, understudy.Options{
		Parallelism: 2, CheckpointInterval: 50 * time.Millisecond,
		Chaos: &understudy.Chaos{Kill: 20 * time.Millisecond, Target: "task", Seed: 710, Limit: 20},
	})
	if err != nil {
		log.Fatal(err)
	}
	seen := map[uint64]bool{}
	rows := out.rows()
	for _, text := range rows {
		var r row
		if err := json.Unmarshal(text, &r); err != nil {
			log.Fatal(err)
		}
		seen[r.Number] = true
	}
	fmt.Printf("%d numbers, %d rows, %d different, %v\n", n, len(rows), len(seen), sum.Kills > 0)
}
