package verify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// historyOp is one event of a history: the invocation or the completion of an operation.
type historyOp struct {
	place   int    // among the events of the file, from 0
	index   string // what the history calls it; empty if it does not say
	typ     string // invoke, ok, fail, info
	f       string // send, poll, txn, assign, subscribe, or something else
	process string
	mops    []microOp
	keys    []string        // of an assign or subscribe
	moved   map[string]bool // keys that were rebalanced during the operation
}

// microOp is one send, or one poll with all that it returned.
type microOp struct {
	send   bool
	key    string    // of a send
	sent   message   // by a send
	polled []keyPoll // by a poll, sorted by key
}

type keyPoll struct {
	key      string
	messages []message
}

// message is a value in the log of a key. Values are interned as text.
type message struct {
	value  string
	offset int64 // -1 if unknown
}

// name says which event this is, for a report.
func (o *historyOp) name() string {
	if o.index != "" {
		return "op " + o.index
	}
	return "op " + strconv.Itoa(o.place)
}

func (o *historyOp) completed() bool { return o.typ != "invoke" }

// transacts reports whether this event sends or polls.
func (o *historyOp) transacts() bool { return o.f == "send" || o.f == "poll" || o.f == "txn" }

// reads returns what the event polled, per key in order of polling. Keys are sorted.
func (o *historyOp) reads() []keyPoll {
	if len(o.mops) == 1 {
		return o.mops[0].polled
	}
	all := map[string][]message{}
	for _, m := range o.mops {
		for _, p := range m.polled {
			all[p.key] = append(all[p.key], p.messages...)
		}
	}
	return sortedPolls(all)
}

// writes returns what the event sent, per key in order of sending. Keys are sorted.
func (o *historyOp) writes() []keyPoll {
	all := map[string][]message{}
	for _, m := range o.mops {
		if m.send {
			all[m.key] = append(all[m.key], m.sent)
		}
	}
	return sortedPolls(all)
}

func sortedPolls(all map[string][]message) []keyPoll {
	var polls []keyPoll
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if len(all[k]) > 0 {
			polls = append(polls, keyPoll{k, all[k]})
		}
	}
	return polls
}

// readHistory reads a file of operations, EDN or JSON: one array of them, or one after the other.
func readHistory(ctx context.Context, path string, m *meter) ([]historyOp, error) {
	m.phase("reading history", sizes([]string{path}))
	f, err := openFile(path, m)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, err := newHistoryDecoder(f, path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnusable, path, err)
	}
	h := historyReader{texts: map[string]string{}}
	for {
		v, err := d.next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return h.ops, nil
		}
		if err == nil {
			err = h.add(v)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s:%d: %w", ErrUnusable, path, d.at(), err)
		}
		if err := m.tick(); err != nil {
			return nil, err
		}
	}
}

// historyDecoder returns the values of a file one by one, those of a top-level array one by one too. JSON comes as the values
// of EDN: strings in the place of keywords.
type historyDecoder interface {
	next() (any, error)
	at() int64 // the line, about
}

func newHistoryDecoder(r io.Reader, path string) (historyDecoder, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if dataExtension(path) != ".edn" {
		looksJSON, err := beginsAsJSON(b)
		if err != nil {
			return nil, err
		}
		if looksJSON {
			return &jsonHistory{r: &lineCounter{r: b, lines: 1}}, nil
		}
	}
	return &ednHistory{r: newEDNReader(b)}, nil
}

// beginsAsJSON looks at the beginning of a file. The first thing in a JSON history is an object with a quoted key, in an EDN
// history a map with a keyword.
func beginsAsJSON(b *bufio.Reader) (bool, error) {
	start, err := b.Peek(4096)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	rest := strings.TrimLeft(string(start), " \t\r\n[")
	inside, isObject := strings.CutPrefix(rest, "{")
	return isObject && strings.HasPrefix(strings.TrimLeft(inside, " \t\r\n"), `"`), nil
}

type ednHistory struct {
	r       *ednReader
	inArray bool
	started bool
}

func (e *ednHistory) at() int64 { return e.r.line }

func (e *ednHistory) next() (any, error) {
	if !e.started {
		e.started = true
		c, err := e.r.skip()
		if err != nil {
			return nil, err
		}
		if e.inArray = c == '['; !e.inArray {
			e.r.back(c)
		}
	}
	if !e.inArray {
		return e.r.next()
	}
	for {
		c, err := e.r.skip()
		if err != nil {
			return nil, e.r.inside(err)
		}
		if c == ']' {
			e.inArray = false
			return e.next()
		}
		v, err := e.r.value(c, 0)
		if err != nil {
			return nil, e.r.inside(err)
		}
		if _, nothing := v.(ednNothing); !nothing {
			return v, nil
		}
	}
}

type jsonHistory struct {
	r       *lineCounter
	d       *json.Decoder
	inArray bool
}

type lineCounter struct {
	r     io.Reader
	lines int64
}

func (l *lineCounter) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.lines += int64(bytes.Count(p[:n], []byte("\n")))
	return n, err
}

func (j *jsonHistory) at() int64 { return j.r.lines }

func (j *jsonHistory) next() (any, error) {
	if j.d == nil {
		if err := j.start(); err != nil {
			return nil, err
		}
	}
	if j.inArray && !j.d.More() {
		if _, err := j.d.Token(); err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		j.inArray = false
	}
	var v any
	if err := j.d.Decode(&v); err != nil {
		return nil, err
	}
	return ednOfJSON(v), nil
}

// start makes the decoder and enters the top-level array, if there is one.
func (j *jsonHistory) start() error {
	b := bufio.NewReader(j.r)
	c, err := b.ReadByte()
	for err == nil && ednSpace(c) {
		c, err = b.ReadByte()
	}
	if err != nil {
		return err
	}
	b.UnreadByte() // cannot fail: a byte was just read
	j.d = json.NewDecoder(b)
	j.d.UseNumber()
	if j.inArray = c == '['; j.inArray {
		_, err = j.d.Token()
	}
	return err
}

// ednOfJSON turns a JSON value into the EDN value that it stands for. Keys of objects become keywords.
func ednOfJSON(v any) any {
	switch v := v.(type) {
	case json.Number:
		return ednNumber(appendNumber(nil, []byte(v)))
	case []any:
		for i := range v {
			v[i] = ednOfJSON(v[i])
		}
		return v
	case map[string]any:
		var m ednMap
		for _, k := range slices.Sorted(maps.Keys(v)) {
			m = append(m, ednPair{ednKeyword(k), ednOfJSON(v[k])})
		}
		return m
	}
	return v
}
