package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of a call to the external service.
const (
	serviceTries   = 6
	serviceBackoff = 50 * time.Millisecond // before the second try; doubled after each
	serviceTimeout = 10 * time.Second      // of one try
	serviceAnswer  = 200                   // bytes of an answer that are used
)

// service is the external HTTP service that enrich asks.
type service struct {
	url    *url.URL
	client *http.Client
	server *http.Server // the built-in one, or nil
	served chan error   // gets what the built-in server ended with
}

// openService reaches for the service at address, or starts a built-in one if there is no address.
func openService(address string) (*service, error) {
	s := &service{client: &http.Client{
		Timeout:   serviceTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: 4 * enrichCapacity},
	}}
	if address == "" {
		return s, s.serve()
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("--service %q: want a URL such as http://localhost:8080/answer", address)
	}
	s.url = u
	return s, nil
}

// serve starts the built-in service on a loopback port that the system chooses. It answers differently each time.
func (s *service) serve() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("the built-in service cannot listen: %w", err)
	}
	s.url = &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/"}
	s.server = &http.Server{
		ReadHeaderTimeout: serviceTimeout,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			// The client is gone if this fails; it asks again if it still wants to know.
			_, _ = io.WriteString(w, strconv.FormatUint(rand.Uint64(), 36))
		}),
	}
	s.served = make(chan error, 1)
	go func() { s.served <- s.server.Serve(l) }()
	return nil
}

func (s *service) close() {
	s.client.CloseIdleConnections()
	if s.server != nil {
		_ = s.server.Close() // nothing that it does is kept
		<-s.served
	}
}

// about asks what the service says of a record. That it says nothing is an answer too: the record fails on it where it can be
// set aside, in the operator behind.
func (s *service) about(ctx context.Context, a arrival) (answered, error) {
	answer, err := s.call(ctx, []byte(a.ID))
	if err != nil {
		if ctx.Err() != nil {
			return answered{}, err
		}
		return answered{ID: a.ID, At: a.At, Failed: err.Error()}, nil
	}
	return answered{ID: a.ID, At: a.At, Answer: string(answer)}, nil
}

// call asks the service, and again a few times if it cannot be reached or fails.
func (s *service) call(ctx context.Context, id []byte) ([]byte, error) {
	var err error
	for try := range serviceTries {
		if try > 0 {
			wait := time.NewTimer(serviceBackoff << (try - 1))
			select {
			case <-wait.C:
			case <-ctx.Done():
				wait.Stop()
				return nil, ctx.Err()
			}
		}
		var answer []byte
		if answer, err = s.try(ctx, string(id)); err == nil {
			return answer, nil
		}
		if errors.Is(err, errRefused) || ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("the service %s does not answer: %w", s.url.Redacted(), err)
}

// errRefused is an answer that will be the same next time.
var errRefused = errors.New("it refuses the request")

func (s *service) try(ctx context.Context, id string) ([]byte, error) {
	u := *s.url
	q := u.Query()
	q.Set("id", id)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, serviceAnswer))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return nil, errors.New(resp.Status)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: %s", errRefused, resp.Status)
	}
	return []byte(strings.ToValidUTF8(string(body), "�")), nil
}
