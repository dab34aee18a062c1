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
	"strconv"
	"time"
)

// copyState is what the keeper of a copy says of it.
type copyState struct {
	Fence      uint64      `json:"fence"` // lower terms are refused
	Base       uint64      `json:"base"`
	BaseLine   uint64      `json:"baseLine"`
	BaseTerm   uint64      `json:"baseTerm"`
	End        uint64      `json:"end"`
	TermStarts []termStart `json:"terms"`
}

// errStale is the keeper's answer to what does not fit its copy: a lower term, or another position.
var errStale = errors.New("http: the copy is elsewhere")

// keeper is an owner's link to who keeps the copy of its log.
type keeper struct {
	node    Node
	log     string
	caller  *caller
	timeout time.Duration // of one call
}

// fence asks the keeper to refuse what owners of lower terms send, and says what it holds then.
func (k *keeper) fence(ctx context.Context, term uint64) (copyState, error) {
	return k.post(ctx, "/fence", url.Values{"term": {text(term)}}, nil)
}

// append sends records that stand at a position. The keeper has synced them when it returns. A copy without records may begin at head.
func (k *keeper) append(ctx context.Context, term, at uint64, head segmentHead, data []byte) (copyState, error) {
	return k.post(ctx, "", url.Values{
		"term": {text(term)}, "at": {text(at)}, "base": {text(head.Base)}, "line": {text(head.Line)}, "before": {text(head.Term)},
	}, data)
}

// read reads records of the copy from a position on.
func (k *keeper) read(ctx context.Context, at uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.address("", url.Values{"at": {text(at)}}), nil)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	answer, err := k.caller.do(r)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxRecord+shipBytes+recordHead))
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, unexpected(answer, data)
	}
	return data, nil
}

func (k *keeper) address(what string, query url.Values) string {
	return k.node.URL + "/v1/copies/" + url.PathEscape(k.log) + what + "?" + query.Encode()
}

func (k *keeper) post(ctx context.Context, what string, query url.Values, data []byte) (s copyState, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, k.address(what, query), bytes.NewReader(data))
	if err != nil {
		return s, fmt.Errorf("http: %w", err)
	}
	answer, err := k.caller.do(r)
	if err != nil {
		return s, fmt.Errorf("http: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return s, fmt.Errorf("http: %w", err)
	}
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusConflict {
		return s, unexpected(answer, body)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("http: the state of a copy: %w", err)
	}
	if answer.StatusCode == http.StatusConflict {
		return s, errStale
	}
	return s, nil
}

const maxAnswer = 1 << 20 // bytes of an answer that is not records

// unexpected makes an error of an answer that is none of those that were expected. What another try cannot mend is permanent.
func unexpected(answer *http.Response, body []byte) error {
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) != nil || said.Error == "" {
		said.Error = answer.Status
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %s", ErrAccess, said.Error)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", ErrUnknownLog, said.Error)
	case http.StatusGone:
		return fmt.Errorf("%w: %s", ErrTruncated, said.Error)
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %s", ErrOffset, said.Error)
	}
	return fmt.Errorf("http: the server answers %d: %s", answer.StatusCode, said.Error)
}

func text(n uint64) string { return strconv.FormatUint(n, 10) }
