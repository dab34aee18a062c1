package main

import (
	"flag"
	"fmt"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// total is a line of output: the running total of a city.
type total struct {
	City   string  `json:"city"`
	Orders int     `json:"orders"`
	Amount float64 `json:"amount"`
}

func main() {
	input := flag.String("input", "orders/*.txt", "orders")
	output := flag.String("output", "totals", "directory for the totals")
	flag.Parse()

	job := operator.NewJob("totals")
	lines := operator.From(job, "orders", file.Lines(*input))
	orders := operator.Map(lines, "parse", func(_ operator.Context, l file.Line) (total, error) {
		t := total{Orders: 1}
		_, err := fmt.Sscan(l.Text, &t.City, &t.Amount)
		return t, err
	})
	totals := operator.Aggregate(operator.KeyBy(orders, func(t total) string { return t.City }), "total",
		func(sum, t total) (total, error) {
			return total{City: t.City, Orders: sum.Orders + 1, Amount: sum.Amount + t.Amount}, nil
		})
	operator.To(totals, "output", file.Sink(*output, file.SinkOptions{}), operator.WithCodec(operator.JSON[total]()))
	understudy.Main(job, understudy.Options{StateDir: *output + ".state"})
}
