package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// Accepted answers a request whose lines are taken: now, or before if it came again with its key.
type Accepted struct {
	Log       string `json:"log"`
	First     uint64 `json:"first"` // how many lines of the log come before
	Lines     uint64 `json:"lines"`
	Duplicate bool   `json:"duplicate,omitempty"` // it had been taken when it came
}

const (
	keyHeader       = "Idempotency-Key"
	forwardedHeader = "Understudy-Forwarded"
	retrySeconds    = "1"
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/lines", s.postLines)
	mux.HandleFunc("POST /v1/end", s.postEnd)
	mux.HandleFunc("GET /v1/status", s.getStatus)
	mux.HandleFunc("GET /v1/logs/{log}", s.getLog)
	mux.HandleFunc("GET /v1/logs/{log}/key", s.getKey)
	mux.HandleFunc("GET /v1/copies/{log}", s.getCopy)
	mux.HandleFunc("POST /v1/copies/{log}", s.postCopy)
	mux.HandleFunc("POST /v1/copies/{log}/fence", s.postFence)
	return mux
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, status int, why string) {
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retrySeconds)
	}
	answer(w, status, map[string]string{"error": why})
}

func answer(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("http: an answer cannot be encoded: %v", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // the other side may be gone
}

// refusal is why a request is answered with something else than 200.
type refusal struct {
	status int
	why    string
}

func (r *refusal) Error() string { return r.why }

func refused(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// reject answers with what an error means.
func reject(w http.ResponseWriter, err error) {
	var r *refusal
	switch {
	case errors.As(err, &r):
		refuse(w, r.status, r.why)
	case errors.Is(err, errFull):
		refuse(w, http.StatusTooManyRequests, err.Error())
	case errors.Is(err, errOther):
		refuse(w, http.StatusUnprocessableEntity, err.Error())
	case errors.Is(err, errEnded), errors.Is(err, ErrTruncated):
		refuse(w, http.StatusGone, err.Error())
	case errors.Is(err, ErrOffset):
		refuse(w, http.StatusRequestedRangeNotSatisfiable, err.Error())
	case errors.Is(err, ErrDiverged):
		refuse(w, http.StatusPreconditionFailed, err.Error())
	default:
		refuse(w, http.StatusServiceUnavailable, err.Error())
	}
}

// postLines takes JSON lines.
func (s *Server) postLines(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get(keyHeader)
	if err := checkKey(r.Header.Values(keyHeader)); err != nil {
		reject(w, err)
		return
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		refuse(w, http.StatusUnsupportedMediaType, "bodies are not compressed")
		return
	}
	release, err := s.reserve(r.ContentLength)
	if err != nil {
		reject(w, err)
		return
	}
	defer release()
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.options.MaxBody))
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("a body has at most %d bytes", s.options.MaxBody))
		return
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body did not come whole")
		return
	}
	body, lines, err := checkLines(raw, s.options.MaxLine)
	if err != nil {
		reject(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.options.AckTimeout)
	defer cancel()
	if home := homeOf(s.options.Nodes, key); key != "" && home != s.self {
		if r.Header.Get(forwardedHeader) != "" {
			refuse(w, http.StatusMisdirectedRequest, "the servers have different lists of servers")
			return
		}
		s.forward(ctx, w, home, key, raw)
		return
	}
	accepted, err := s.take(ctx, &taking{kind: kindLines, body: body, lines: lines, key: key})
	if err != nil {
		reject(w, err)
		return
	}
	answer(w, http.StatusOK, accepted)
}

// checkKey tells whether a request has one usable idempotency key at most.
func checkKey(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	bad := func(r rune) bool { return r < ' ' || r > '~' }
	if len(keys) > 1 || keys[0] == "" || len(keys[0]) > maxKey || strings.ContainsFunc(keys[0], bad) {
		return refused(http.StatusBadRequest, "a request has one %s of 1 to %d printable characters, or none", keyHeader, maxKey)
	}
	return nil
}

// reserve makes room for a body, whose length may be unknown: -1.
func (s *Server) reserve(length int64) (release func(), err error) {
	if length > s.options.MaxBody {
		return nil, refused(http.StatusRequestEntityTooLarge, "a body has at most %d bytes", s.options.MaxBody)
	}
	if length < 0 {
		length = s.options.MaxBody
	}
	if s.buffered.Add(length) > s.options.MaxBuffered {
		s.buffered.Add(-length)
		return nil, refused(http.StatusTooManyRequests, "too many requests are under way")
	}
	return func() { s.buffered.Add(-length) }, nil
}

// checkLines gives the lines of a body that are not blank, each with its "\n", or says what is wrong with the first bad one.
func checkLines(raw []byte, maxLine int64) (body []byte, lines uint64, err error) {
	body = make([]byte, 0, len(raw)+1)
	number := 0
	for line := range bytes.Lines(raw) {
		number++
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0:
			continue
		case int64(len(line)) > maxLine:
			return nil, 0, refused(http.StatusRequestEntityTooLarge, "line %d has %d bytes, at most %d: nothing was taken", number, len(line), maxLine)
		case !utf8.Valid(line) || !json.Valid(line):
			return nil, 0, refused(http.StatusBadRequest, "line %d is not JSON: nothing was taken", number)
		}
		body = append(append(body, line...), '\n')
		lines++
	}
	if lines == 0 {
		return nil, 0, refused(http.StatusBadRequest, "the body has no line")
	}
	return body, lines, nil
}

// take puts a request into this server's log and waits until it is durable.
func (s *Server) take(ctx context.Context, t *taking) (Accepted, error) {
	same, duplicate, err := s.owner.submit(t)
	if err != nil {
		return Accepted{}, err
	}
	select {
	case <-same.done:
	case <-ctx.Done():
		select {
		case <-same.done: // both: it is taken
		default:
			return Accepted{}, errDoubt
		}
	}
	if same.err != nil {
		return Accepted{}, same.err
	}
	return Accepted{Log: s.options.Name, First: same.first, Lines: same.lines, Duplicate: duplicate}, nil
}

// forward hands a request to the server into whose log its key belongs. If that does not answer, the copy of its log tells whether the
// request is in it.
func (s *Server) forward(ctx context.Context, w http.ResponseWriter, home int, key string, raw []byte) {
	node := s.options.Nodes[home]
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, node.URL+"/v1/lines", bytes.NewReader(raw))
	if err != nil {
		reject(w, err)
		return
	}
	r.Header.Set(keyHeader, key)
	r.Header.Set(forwardedHeader, s.options.Name)
	said, err := s.caller.do(r)
	if err == nil {
		defer said.Body.Close()
		data, rerr := io.ReadAll(io.LimitReader(said.Body, maxAnswer))
		if rerr == nil && said.StatusCode != http.StatusServiceUnavailable {
			if again := said.Header.Get("Retry-After"); again != "" {
				w.Header().Set("Retry-After", again)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(said.StatusCode)
			_, _ = w.Write(data) // the other side may be gone
			return
		}
	}
	body, _, _ := checkLines(raw, s.options.MaxLine) // it was checked
	sum := (&record{Body: body}).sum()
	ctx, cancel := context.WithTimeout(s.ctx, lookupTimeout) // what the request had may be used up
	defer cancel()
	if t, ok := s.lookUp(ctx, home, key); ok && t.sum != sum {
		reject(w, errOther)
	} else if ok {
		answer(w, http.StatusOK, Accepted{Log: node.Name, First: t.first, Lines: t.lines, Duplicate: true})
	} else {
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("server %s, which takes requests with this key, does not answer: this one may be taken later", node.Name))
	}
}

const lookupTimeout = 3 * time.Second

// lookUp asks the copy of a server's log for a request.
func (s *Server) lookUp(ctx context.Context, home int, key string) (taken, bool) {
	at := keeperOf(s.options.Nodes, home)
	name := s.options.Nodes[home].Name
	if at == s.self {
		t, _, ok := s.copies[name].log.found(key)
		return t, ok
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet,
		s.options.Nodes[at].URL+"/v1/logs/"+url.PathEscape(name)+"/key?"+url.Values{"key": {key}}.Encode(), nil)
	if err != nil {
		return taken{}, false
	}
	said, err := s.caller.do(r)
	if err != nil {
		return taken{}, false
	}
	defer said.Body.Close()
	var found foundKey
	if said.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(said.Body, maxAnswer)).Decode(&found) != nil {
		return taken{}, false
	}
	return taken{first: found.First, lines: found.Lines, sum: found.Sum}, true
}

// foundKey answers the question for a key.
type foundKey struct {
	First uint64 `json:"first"`
	Lines uint64 `json:"lines"`
	Sum   uint64 `json:"sum"`
}

// postEnd ends this server's log: nothing more is taken, and the job has read the split when it has read what is there.
func (s *Server) postEnd(w http.ResponseWriter, r *http.Request) {
	if state := s.owner.log.state(); state.Ended && state.Readable == state.End {
		answer(w, http.StatusOK, Accepted{Log: s.options.Name, First: state.Lines, Duplicate: true})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.options.AckTimeout)
	defer cancel()
	accepted, err := s.take(ctx, &taking{kind: kindEnd})
	if err != nil {
		reject(w, err)
		return
	}
	answer(w, http.StatusOK, accepted)
}
