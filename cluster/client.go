package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/understudy-stream/understudy/transport"
)

const (
	askTimeout  = 2 * time.Second // for a connection to one coordinator
	askPause    = 50 * time.Millisecond
	maxRedirect = 3

	doubtfulTries = 3 // of each coordinator
)

// errElsewhere says that another coordinator must be asked.
var errElsewhere = errors.New("cluster: this coordinator does not lead")

// ask puts a request to the leader, whoever it is, until it answers or ctx ends. into takes the answer's body; nil if there is
// none.
func (c *Client) ask(ctx context.Context, q request, into any) error {
	var last error
	var doubt doubts
	for {
		for _, address := range c.coordinators {
			err := c.askAt(ctx, address, q, into, maxRedirect)
			if err == nil || definite(err) || doubt.confirmed(err, len(c.coordinators)) {
				return err
			}
			last = err
		}
		wait := time.NewTimer(askPause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("%w: %w", ErrNoLeader, last)
		case <-wait.C:
		}
	}
}

// definite tells whether asking somebody else, or once more, would give the same answer.
func definite(err error) bool {
	var refused *refusedError
	if errors.As(err, &refused) || errors.Is(err, transport.ErrVersion) || errors.Is(err, transport.ErrInsecure) {
		return true
	}
	var unwanted *transport.Refused // for good, or by a process that is about to end
	return errors.As(err, &unwanted) && strings.Contains(unwanted.Reason, ErrOtherCluster.Error())
}

// doubts count errors that mean something is wrong for good, unless the other side died in that very moment.
type doubts struct{ inARow int }

// confirmed tells whether all coordinators have said so, several times in a row.
func (d *doubts) confirmed(err error, coordinators int) bool {
	if !errors.Is(err, transport.ErrSecret) && !errors.Is(err, transport.ErrTLS) {
		d.inARow = 0
		return false
	}
	d.inARow++
	return d.inARow >= doubtfulTries*coordinators
}

// refusedError is a coordinator's answer to a request that it does not fulfil.
type refusedError struct{ text string }

// Error is what the coordinator said.
func (e *refusedError) Error() string { return "cluster: " + e.text }

// askAt asks one coordinator, and the one that it names as the leader.
func (c *Client) askAt(ctx context.Context, address string, q request, into any, redirects int) error {
	dial, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, _, err := c.security.Dial(dial, address, transport.Hello{Purpose: purposeClient, Cluster: c.cluster})
	if err != nil {
		return fmt.Errorf("cluster: coordinator at %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the reading below hears of it
	defer stop()
	var r reply
	err = conn.Write(frameBody, encode(&q))
	if err == nil {
		var body []byte
		if _, body, err = conn.Read(); err == nil {
			err = decode(body, &r)
		}
	}
	if err = errors.Join(err, conn.Close()); err != nil && r.Body == nil && r.Redirect == nil && r.Err == "" {
		return fmt.Errorf("cluster: coordinator at %s: %w", address, err)
	}
	switch {
	case r.Err != "":
		return &refusedError{text: r.Err}
	case r.Redirect != nil && *r.Redirect != "" && redirects > 0:
		return c.askAt(ctx, *r.Redirect, q, into, redirects-1)
	case r.Redirect != nil:
		return errElsewhere
	case into != nil:
		return decode(r.Body, into)
	}
	return nil
}

// Stop takes a checkpoint and then ends all processes of the cluster, and tells how it left the job: JobStopping, which goes on when
// they are started again, from there if the checkpoint was complete in time, JobFailed, which goes on from its last checkpoint, or JobFinished.
func (c *Client) Stop(ctx context.Context) (JobState, error) {
	var left JobState
	if err := c.ask(ctx, request{Stop: true}, &left); err != nil {
		return "", err
	}
	for _, address := range c.coordinators {
		err := c.askAt(ctx, address, request{Exit: true}, nil, 0)
		if err != nil && definite(err) {
			return left, err // others are gone already, or go by themselves
		}
	}
	return left, nil
}
