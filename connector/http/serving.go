package http

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	maxWait   = time.Minute // of a reader for more
	readBytes = 1 << 20     // given to a reader at once, if records are not longer
)

// logOf gives the log with a name that this server has, and whether it is its own.
func (s *Server) logOf(name string) (log *lineLog, own bool, err error) {
	if name == s.options.Name {
		return s.owner.log, true, nil
	}
	if c := s.copies[name]; c != nil {
		return c.log, false, nil
	}
	return nil, false, refused(http.StatusNotFound, "%s keeps no log %s", s.options.Name, name)
}

// number reads a number of a request.
func number(q url.Values, name string) (uint64, error) {
	n, err := strconv.ParseUint(q.Get(name), 10, 64)
	if err != nil {
		return 0, refused(http.StatusBadRequest, "%s is not a number", name)
	}
	return n, nil
}

// reaches tells whether a log can have a line, now or later, as far as that is known here: a copy may be behind for a while.
func (s *Server) reaches(log *lineLog, own bool, line uint64) error {
	state, known := log.state(), false
	if own {
		switch s.owner.standing().phase {
		case phaseJoining:
			return errNotReady // the copy may have more
		case phaseReady, phaseAlone:
			known = true
		}
	}
	if (known || state.Ended) && line > state.Lines {
		return fmt.Errorf("%w: line %d; there are %d", ErrOffset, line, state.Lines)
	}
	return nil
}

// getLog gives a reader the readable records from a line on. It waits for one as long as the reader says: then 204.
func (s *Server) getLog(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	log, own, err := s.logOf(r.PathValue("log"))
	var line uint64
	if err == nil {
		line, err = number(q, "line")
	}
	if err == nil {
		err = s.reaches(log, own, line)
	}
	if err != nil {
		reject(w, err)
		return
	}
	wait, err := time.ParseDuration(q.Get("wait"))
	if err != nil {
		wait = 0
	}
	if q.Get("job") != "" {
		s.progress(r.PathValue("log"), log, own, line)
	}
	timer := time.NewTimer(min(wait, maxWait))
	defer timer.Stop()
	for {
		data, _, more, err := log.readLines(line, readBytes)
		if err != nil {
			reject(w, err)
			return
		}
		if len(data) > 0 {
			sendRecords(w, data)
			return
		}
		if own && s.owner.standing().phase == phaseOver {
			reject(w, errNotReady) // the copy may have more, of a later owner
			return
		}
		select {
		case <-more:
			continue
		case <-r.Context().Done():
		case <-s.ctx.Done():
		case <-timer.C:
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
}

func sendRecords(w http.ResponseWriter, data []byte) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) // the other side may be gone
}

// getKey tells whether a request is in a log.
func (s *Server) getKey(w http.ResponseWriter, r *http.Request) {
	log, _, err := s.logOf(r.PathValue("log"))
	if err != nil {
		reject(w, err)
		return
	}
	t, readable, _ := log.found(r.URL.Query().Get("key"))
	if !readable {
		refuse(w, http.StatusNotFound, "no request with this key is known")
		return
	}
	answer(w, http.StatusOK, foundKey{First: t.first, Lines: t.lines, Sum: t.sum})
}

// getCopy gives an owner the records of its copy.
func (s *Server) getCopy(w http.ResponseWriter, r *http.Request) {
	c := s.copies[r.PathValue("log")]
	if c == nil {
		refuse(w, http.StatusNotFound, "no copy of this log is kept here")
		return
	}
	at, err := number(r.URL.Query(), "at")
	if err != nil {
		reject(w, err)
		return
	}
	data, err := c.log.readAt(at, shipBytes)
	if err != nil {
		reject(w, err)
		return
	}
	sendRecords(w, data)
}

// postFence makes an owner the last one.
func (s *Server) postFence(w http.ResponseWriter, r *http.Request) {
	c := s.copies[r.PathValue("log")]
	if c == nil {
		refuse(w, http.StatusNotFound, "no copy of this log is kept here")
		return
	}
	term, err := number(r.URL.Query(), "term")
	if err != nil {
		reject(w, err)
		return
	}
	state, err := c.fence(term)
	sayState(w, state, err)
}

// postCopy takes an owner's records.
func (s *Server) postCopy(w http.ResponseWriter, r *http.Request) {
	c := s.copies[r.PathValue("log")]
	if c == nil {
		refuse(w, http.StatusNotFound, "no copy of this log is kept here")
		return
	}
	q := r.URL.Query()
	var fields [5]uint64
	for i, name := range []string{"term", "at", "base", "line", "before"} {
		n, err := number(q, name)
		if err != nil {
			reject(w, err)
			return
		}
		fields[i] = n
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRecord+shipBytes+recordHead))
	if err != nil {
		refuse(w, http.StatusBadRequest, "the records did not come whole")
		return
	}
	state, err := c.append(fields[0], fields[1], segmentHead{Base: fields[2], Line: fields[3], Term: fields[4]}, data)
	sayState(w, state, err)
}

func sayState(w http.ResponseWriter, state copyState, err error) {
	switch {
	case err == nil:
		answer(w, http.StatusOK, state)
	case errors.Is(err, errStale):
		answer(w, http.StatusConflict, state)
	default:
		reject(w, err)
	}
}

// Status is where a server stands, as GET /v1/status gives it.
type Status struct {
	Name     string      `json:"name"`
	Phase    string      `json:"phase"`         // joining, ready, alone or over
	Why      string      `json:"why,omitempty"` // it is not ready
	Log      LogStatus   `json:"log"`
	Unread   uint64      `json:"unread"`   // bytes that the job has not read
	Uncopied uint64      `json:"uncopied"` // bytes that are not in the copy yet
	Copies   []LogStatus `json:"copies,omitempty"`
}

// LogStatus is what a server has of a log.
type LogStatus struct {
	Name  string `json:"name"`
	First uint64 `json:"first"` // lines before the first one kept
	Lines uint64 `json:"lines"` // in all
	Bytes uint64 `json:"bytes"` // kept
	Keys  int    `json:"keys"`  // remembered
	Ended bool   `json:"ended,omitempty"`
}

// Status tells where the server stands.
func (s *Server) Status() Status {
	at, state := s.owner.standing(), s.owner.log.state()
	out := Status{
		Name: s.options.Name, Phase: string(at.phase), Why: at.why, Log: logStatus(s.options.Name, &state),
		Unread: state.End - min(state.End, max(at.read, state.Head.Base)),
	}
	if s.owner.keeper != nil {
		out.Uncopied = state.End - min(state.End, at.copied)
	}
	for _, n := range s.options.Nodes {
		if c := s.copies[n.Name]; c != nil {
			state := c.log.state()
			out.Copies = append(out.Copies, logStatus(n.Name, &state))
		}
	}
	return out
}

func logStatus(name string, s *state) LogStatus {
	return LogStatus{Name: name, First: s.Head.Line, Lines: s.Lines, Bytes: s.End - s.Head.Base, Keys: s.Keys, Ended: s.Ended}
}

func (s *Server) getStatus(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.Status())
}
