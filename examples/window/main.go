package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// total is a line of output.
type total struct {
	Answer string    `json:"answer"`
	From   time.Time `json:"from"`
	Count  int       `json:"count"`
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: window GLOB DIRECTORY URL")
	}
	job := operator.NewJob("window")
	lines := operator.From(job, "lines", file.Lines(os.Args[1]))
	// Up to 50 calls are under way at once; answers go on as they come. An error would fail the task, and its standby would
	// ask again.
	answers := operator.AsyncMap(operator.Rebalanced(lines), "ask", func(ctx context.Context, l file.Line) (string, error) {
		return ask(ctx, os.Args[3], l.Text)
	}, operator.AsyncOptions{Capacity: 50, Timeout: 10 * time.Second})
	totals, _ := operator.Window(operator.KeyBy(answers, func(a string) string { return a }), "count",
		operator.Tumbling(time.Second).ProcessingTime(), operator.Aggregator[string, string, int, total]{
			Add: func(n int, _ string) (int, error) { return n + 1, nil },
			Emit: func(_ operator.Context, answer string, w operator.WindowInfo, n int, emit func(total)) error {
				emit(total{Answer: answer, From: w.Start, Count: n})
				return nil
			},
		})
	operator.To(totals, "output", file.Sink(os.Args[2], file.SinkOptions{}), operator.WithCodec(operator.JSON[total]()))
	sum, err := understudy.Run(context.Background(), job, understudy.Options{Parallelism: 2, StateDir: os.Args[2] + ".state"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sum.RecordsIn, "lines,", sum.RecordsOut, "totals")
}

// ask gives the service's answer to a question.
func ask(ctx context.Context, service, question string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, service+"?q="+url.QueryEscape(question), nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", service, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	return string(body), err
}
