package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// The shape of enrich.
const (
	enrichKeys     = 16      // draws are counted per key, of which there are so many
	enrichRandom   = 1000000 // draws are below this
	enrichAgain    = 16      // every so many-th record of a key is asked about a second time, synchronously
	enrichCapacity = 64      // calls of one task that may be under way
	enrichWindow   = 200 * time.Millisecond
)

// arrival is a line of the input when it has arrived.
type arrival struct {
	ID string
	At int64 // milliseconds since the Unix epoch
}

// answered is an arrival with what the service said of it. Failed tells why it said nothing.
type answered struct {
	ID     string
	At     int64
	Answer string
	Failed string
}

// draw is a line of enrich's output: one per line of the input.
type draw struct {
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Key     string `json:"key"`
	Arrived int64  `json:"arrived"`
	Random  int64  `json:"random"`
	Answer  string `json:"answer"`
	Again   string `json:"again,omitempty"`
	Order   int64  `json:"order"` // running number within the key
}

// total is a line of enrich's output: one per key and window that is not empty.
type total struct {
	Kind  string   `json:"kind"`
	Key   string   `json:"key"`
	Start int64    `json:"start"`
	End   int64    `json:"end"`
	Count int64    `json:"count"`
	Sum   int64    `json:"sum"`
	IDs   []string `json:"ids"`
}

// buildEnrich makes a job that no two runs of agree on: two inputs are merged as they arrive, the time of arrival counts, an
// external service answers something else each time, in any order, numbers are drawn at random, and processing time cuts the
// windows. What it shows must still look like one run without failures.
func buildEnrich(o *runOptions) (*operator.Job, func(), error) {
	lines, err := o.lines()
	if err != nil {
		return nil, nil, err
	}
	service, err := openService(o.service)
	if err != nil {
		return nil, nil, err
	}
	job := operator.NewJob("enrich")
	codec := operator.WithCodec[file.Line](lineCodec{})
	left := operator.From(job, "left", operator.Source[file.Line](&half{Source: lines, which: 0}), codec)
	right := operator.From(job, "right", operator.Source[file.Line](&half{Source: lines, which: 1}), codec)
	arrivals := operator.Map(operator.Union("merge", left, right), "arrive",
		func(ctx operator.Context, l file.Line) (arrival, error) {
			return arrival{ID: idOf(l), At: ctx.Now().UnixMilli()}, nil
		})
	asked := operator.AsyncMap(arrivals, "ask", service.about, operator.AsyncOptions{Capacity: enrichCapacity})
	draws := operator.Process(operator.KeyBy(asked, func(a answered) string { return keyOf(a.ID) }), "draw",
		func() operator.Processor[string, answered, draw] { return &drawing{service: service} })
	totals, _ := operator.Window(operator.KeyBy(draws, func(d draw) string { return d.Key }), "total",
		operator.Tumbling(cmp.Or(o.window, enrichWindow)).ProcessingTime(), operator.Aggregator[string, draw, total, total]{Add: addDraw, Emit: emitTotal})
	shownDraws := operator.Map(draws, "show draw", show[draw])
	shownTotals := operator.Map(totals, "show total", show[total])
	if err := outputTo(o, operator.Union("output lines", shownDraws, shownTotals), textCodec{}); err != nil {
		service.close()
		return nil, nil, err
	}
	return job, service.close, nil
}

// drawing draws for each record.
type drawing struct {
	service *service
	order   *operator.Value[int64]
}

func (p *drawing) Open(s *operator.States) error {
	p.order = operator.NewValue[int64](s, "order")
	return nil
}

func (p *drawing) Process(ctx operator.KeyedContext[string], a answered, emit func(draw)) error {
	if a.Failed != "" {
		return errors.New(a.Failed)
	}
	order, _ := p.order.Get()
	order++
	p.order.Set(order)
	d := draw{Kind: "draw", ID: a.ID, Key: ctx.Key(), Arrived: a.At, Answer: a.Answer, Order: order}
	d.Random = ctx.Rand().Int64N(enrichRandom)
	if order%enrichAgain == 0 {
		again, err := ctx.Call([]byte(a.ID), p.service.call)
		if err != nil {
			return err
		}
		d.Again = string(again)
	}
	emit(d)
	return nil
}

func (p *drawing) Timer(operator.KeyedContext[string], operator.Timer, func(draw)) error { return nil }

// addDraw takes a draw into a window. Each accumulator is extended once, so that sharing the memory of IDs changes none.
func addDraw(acc total, d draw) (total, error) {
	acc.Count++
	acc.Sum += d.Random
	acc.IDs = append(acc.IDs, d.ID)
	return acc, nil
}

func emitTotal(_ operator.Context, key string, w operator.WindowInfo, acc total, emit func(total)) error {
	acc.Kind, acc.Key, acc.Start, acc.End = "window", key, w.Start.UnixMilli(), w.End.UnixMilli()
	emit(acc)
	return nil
}

// show makes a line of JSON.
func show[T any](_ operator.Context, v T) (string, error) {
	line, err := operator.JSON[T]().Append(nil, v)
	return string(line), err
}

// idOf identifies a line: by the field "id" if it is a JSON object that has one, otherwise by where it stands.
func idOf(l file.Line) string {
	if text := strings.TrimLeft(l.Text, " \t"); strings.HasPrefix(text, "{") {
		var object map[string]json.RawMessage // a struct would take "ID" for "id"
		if json.Unmarshal([]byte(l.Text), &object) == nil {
			if id, ok := scalar(object["id"]); ok {
				return id
			}
		}
	}
	return l.File + ":" + strconv.FormatUint(l.Offset, 10)
}

// scalar is a JSON string without its quotes, or a number or truth value as it is written.
func scalar(raw json.RawMessage) (string, bool) {
	switch raw = bytes.TrimSpace(raw); {
	case len(raw) == 0, raw[0] == '{', raw[0] == '[', raw[0] == 'n':
		return "", false
	case raw[0] != '"':
		return string(raw), true
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

// keyOf is the key that an id belongs to.
func keyOf(id string) string {
	h := fnv.New32a()
	h.Write([]byte(id))
	return strconv.Itoa(int(h.Sum32() % enrichKeys))
}

// half is a source of about half the lines of a set of files; which says of which half. Lines are split by where they
// start, so that two halves are two inputs even of a single small file.
type half struct {
	operator.Source[file.Line]
	which uint64
}

// Open implements operator.Source.
func (h *half) Open(ctx context.Context, split string, offset uint64) (operator.Reader[file.Line], error) {
	r, err := h.Source.Open(ctx, split, offset)
	if err != nil {
		return nil, err
	}
	return &halfReader{Reader: r, which: h.which}, nil
}

type halfReader struct {
	operator.Reader[file.Line]
	which uint64
}

// Next implements operator.Reader. It passes over lines of the other half, and over blank lines of JSONL files, which are no
// records.
func (r *halfReader) Next() (file.Line, uint64, error) {
	for {
		l, next, err := r.Reader.Next()
		if err != nil || halfOf(l.Offset) == r.which && !(isJSONL(l.File) && strings.TrimSpace(l.Text) == "") {
			return l, next, err
		}
	}
}

// halfOf is the upper bit of a multiplicative hash: offsets of lines may all be even.
func halfOf(offset uint64) uint64 { return offset * 0x9E3779B97F4A7C15 >> 63 }

func isJSONL(name string) bool {
	switch strings.ToLower(path.Ext(strings.TrimSuffix(name, ".gz"))) {
	case ".jsonl", ".ndjson", ".json":
		return true
	}
	return false
}
