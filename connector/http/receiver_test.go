package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// taker is a receiver of webhooks that takes each id once. It goes by what docs/connectors/http.md says of ids, and shares no code with the
// sink.
type taker struct {
	t      testing.TB
	server *httptest.Server
	mu     struct {
		sync.Mutex
		seen     map[string]string // record by id
		keys     map[string]string // body by Idempotency-Key
		branches map[int]int       // newest, by task
		shown    map[int][]string  // records by task, in the order in which they came
		again    int               // ids that came again
		late     int               // records of an older branch
		requests int
		faults   []string
		// before is asked first; it may answer in the receiver's place. after may take the answer away.
		before func(w http.ResponseWriter, n int) bool
		after  func(w http.ResponseWriter, n int)
	}
}

func newTaker(t testing.TB) *taker {
	r := &taker{t: t}
	r.mu.seen, r.mu.keys = make(map[string]string), make(map[string]string)
	r.mu.branches, r.mu.shown = make(map[int]int), make(map[int][]string)
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *taker) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return // the sender has died
	}
	r.mu.Lock()
	r.mu.requests++
	n, before, after := r.mu.requests, r.mu.before, r.mu.after
	r.mu.Unlock()
	if before != nil && before(w, n) {
		return
	}
	r.take(q.Header.Get("Idempotency-Key"), q.Header.Get("Content-Type"), body)
	if after != nil {
		after(w, n)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *taker) take(key, kind string, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.mu.keys[key]; ok && was != string(body) {
		r.mu.faults = append(r.mu.faults, fmt.Sprintf("key %s came with two bodies", key))
	}
	r.mu.keys[key] = string(body)
	if kind == "application/json" {
		r.one(key, string(body))
		return
	}
	for line := range bytes.Lines(body) {
		var e struct {
			ID     string          `json:"id"`
			Record json.RawMessage `json:"record"`
		}
		if err := json.Unmarshal(line, &e); err != nil || e.ID == "" {
			r.mu.faults = append(r.mu.faults, fmt.Sprintf("a line that is no envelope: %q", line))
			continue
		}
		r.one(e.ID, string(e.Record))
	}
}

func (r *taker) one(id, record string) {
	if was, ok := r.mu.seen[id]; ok {
		if r.mu.again++; was != record {
			r.mu.faults = append(r.mu.faults, fmt.Sprintf("id %s came as %s and as %s", id, was, record))
		}
		return
	}
	parts := strings.Split(id, "-")
	if len(parts) != 4 {
		r.mu.faults = append(r.mu.faults, "id "+id)
		return
	}
	task, _ := strconv.Atoi(parts[1])
	branch, _ := strconv.Atoi(parts[2])
	if branch < r.mu.branches[task] {
		r.mu.late++
		return
	}
	r.mu.branches[task] = branch
	r.mu.seen[id] = record
	r.mu.shown[task] = append(r.mu.shown[task], record)
}

// records are what the receiver has taken of a task.
func (r *taker) records(task int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.mu.shown[task]...)
}

// check says that nothing was wrong with what came.
func (r *taker) check() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Empty(r.t, r.mu.faults)
}

func (r *taker) behave(before func(w http.ResponseWriter, n int) bool, after func(w http.ResponseWriter, n int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.before, r.mu.after = before, after
}

func (r *taker) repeated() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.again
}
