package verify_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/understudy-stream/understudy/verify"
)

// write makes a file in a new folder. Call done to remove both.
func write(name string, lines ...string) (path string, done func()) {
	dir, err := os.MkdirTemp("", "verify-example-*")
	if err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		log.Fatal(err)
	}
	return path, func() { os.RemoveAll(dir) }
}

// print shows a report without its first offenders, whose places have temporary names here.
func print(r *verify.Report, err error) {
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range r.Violations {
		if v.Count > 0 {
			fmt.Println(v.Kind, v.Count)
		}
	}
	fmt.Println("clean:", r.Clean())
}

func ExampleCheckIDs() {
	in, done := write("in.jsonl", `{"id":1}`, `{"id":2}`, `{"id":3}`)
	defer done()
	out, done := write("out.jsonl", `{"id":"1","total":10}`, `{"id":"3","total":20}`, `{"id":"3","total":20}`)
	defer done()
	print(verify.CheckIDs(context.Background(), verify.IDsOptions{
		Input:  verify.Selection{Paths: []string{in}},
		Output: verify.Selection{Paths: []string{out}, Fields: []string{"id"}},
	}))
	// Output:
	// missing 1
	// duplicate 1
	// clean: false
}

func ExampleCheckRunning() {
	in, done := write("in.txt", "To be, or not to be.")
	defer done()
	out, done := write("out.csv", "word,count", "to,1", "be,1", "or,1", "not,1", "to,2", "be,2")
	defer done()
	print(verify.CheckRunning(context.Background(), verify.RunningOptions{
		Output: verify.Selection{Paths: []string{out}, Fields: []string{"word", "count"}},
		Start:  1,
		Words:  verify.Selection{Paths: []string{in}},
	}))
	// Output:
	// clean: true
}

func ExampleCheckEqual() {
	a, done := write("a.jsonl", `{"k":"x","n":1}`, `{"k":"y","n":2}`)
	defer done()
	b, done := write("b.jsonl", `{"n":2.0,"k":"y"}`, `{"n":1,"k":"x"}`)
	defer done()
	print(verify.CheckEqual(context.Background(), verify.EqualOptions{
		A:    verify.Selection{Paths: []string{a}},
		B:    verify.Selection{Paths: []string{b}},
		Mode: verify.EqualJSON,
	}))
	// Output:
	// clean: true
}

func ExampleCheckDraws() {
	in, done := write("in.jsonl", `{"id":"a"}`, `{"id":"b"}`)
	defer done()
	out, done := write("out.jsonl",
		`{"kind":"draw","id":"a","key":"k","random":30}`,
		`{"kind":"draw","id":"b","key":"k","random":12}`,
		`{"kind":"window","key":"k","start":1000,"count":2,"sum":41,"ids":["a","b"]}`)
	defer done()
	print(verify.CheckDraws(context.Background(), verify.DrawsOptions{
		Input:  verify.Selection{Paths: []string{in}},
		Output: verify.Selection{Paths: []string{out}},
	}))
	// Output:
	// window-sum 1
	// clean: false
}

func ExampleCheckHistory() {
	history, done := write("history.edn",
		`{:type :ok, :f :send, :process 0, :value [[:send :x [0 "a"]] [:send :x [1 "b"]]]}`,
		`{:type :ok, :f :poll, :process 1, :value [[:poll {:x [[0 "a"] [1 "b"]]}]]}`,
		`{:type :ok, :f :poll, :process 1, :value [[:poll {:x [[1 "b"]]}]]}`)
	defer done()
	print(verify.CheckHistory(context.Background(), verify.HistoryOptions{Path: history}))
	// Output:
	// nonmonotonic-poll 1
	// clean: false
}

// A Sorter brings equal keys together, in bounded memory.
func ExampleSorter() {
	s, err := verify.NewSorter(verify.SorterOptions{Memory: 1 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	for _, word := range strings.Fields("a rose is a rose") {
		if err := s.Add([]byte(word), nil); err != nil {
			log.Fatal(err)
		}
	}
	counts := map[string]int{}
	err = s.Merge(context.Background(), func(r verify.Record) error {
		counts[string(r.Key)]++
		return nil
	})
	fmt.Println(counts, err)
	// Output:
	// map[a:2 is:1 rose:2] <nil>
}

func ExampleReport_WriteText() {
	r := &verify.Report{
		Check:  "ids",
		Counts: []verify.Count{{Name: "input-records", N: 3}, {Name: "output-records", N: 2}},
		Violations: []verify.Violation{
			{Kind: "missing", Count: 1, First: []verify.Offender{{What: "7", Where: "in.jsonl:3"}}},
			{Kind: "duplicate"},
		},
	}
	r.WriteText(os.Stdout)
	// Output:
	// input-records   3
	// output-records  2
	// missing         1
	//     in.jsonl:3: 7
	// duplicate       0
	// verify ids: VIOLATED: 1 missing
}
