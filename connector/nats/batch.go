package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of what one request brings. A batch ends with the message that reaches one of them, so it is larger by at most a message.
const (
	batchMessages = 1000
	batchBytes    = 1 << 20 // of subjects, headers as stored, and data
)

// What the client's library has no names for.
const (
	statusHeader = "Status" // of an answer that is no message
	endOfBatch   = "204"
)

var (
	// errUnanswered says that a batch is not what was asked for: the leader is to be asked, message by message.
	errUnanswered = errors.New("nats: no such batch")
	// errSilent says that nobody answered: it may be that the user has no right to ask.
	errSilent = errors.New("nats: no answer to a request for messages")
)

// batch gives messages of a subject behind one that is known, in order and without a gap; whichever server has the stream answers. After
// an error it gives those that came. With errUnanswered or errSilent there may be more; without an error it gives at least one.
//
// Invariant: the answer begins with the message that is known. A replica that lacks it may lack others.
func (r *requests) batch(ctx context.Context, subject string, known *stored) (more []*stored, err error) {
	conn, _, err := r.link.get()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(struct {
		question
		Batch    int `json:"batch"`
		MaxBytes int `json:"max_bytes"`
	}{question{Seq: known.Sequence, NextFor: subject}, batchMessages, batchBytes})
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	within, done := r.link.bounded(ctx, r.link.options.Timeout)
	defer done()
	inbox, answers := conn.NewInbox(), make(chan *client.Msg, batchMessages+1)
	sub, err := conn.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil, fmt.Errorf("nats: reading %s: %w", r.stream, err)
	}
	defer sub.Unsubscribe() // fails if the connection is closed, and with it the subscription
	if err := conn.PublishRequest(r.link.options.prefix()+"DIRECT.GET."+r.stream, inbox, body); err != nil {
		return nil, fmt.Errorf("nats: reading %s: %w", r.stream, err)
	}
	begun := false
	for before := uint64(0); ; {
		answer, err := arrived(within, answers)
		switch {
		case errors.Is(err, client.ErrTimeout):
			return more, errSilent
		case err != nil:
			return more, fmt.Errorf("nats: reading %s: %w", r.stream, err)
		}
		m, err := r.batched(answer, before)
		switch {
		case err != nil || m == nil && len(more) == 0:
			return more, errors.Join(errUnanswered, err)
		case m == nil:
			return more, nil
		case begun:
			more = append(more, m)
		case m.Subject != known.Subject || m.Sequence != known.Sequence || m.id() != known.id() || !bytes.Equal(m.Data, known.Data):
			return nil, fmt.Errorf("%w: it begins with message %d of %s, not %d", errUnanswered, m.Sequence, r.stream, known.Sequence)
		}
		begun, before = true, m.Sequence
	}
}

// arrived waits for an answer. Those that came before the connection broke count.
func arrived(ctx context.Context, answers <-chan *client.Msg) (*client.Msg, error) {
	select {
	case m := <-answers:
		return m, nil
	case <-ctx.Done():
	}
	select {
	case m := <-answers:
		return m, nil
	default:
		return nil, context.Cause(ctx)
	}
}

// batched decodes a message of a batch, the one behind the message with sequence before; nil at the batch's end.
func (r *requests) batched(answer *client.Msg, before uint64) (*stored, error) {
	h := answer.Header
	status, stream := h.Get(statusHeader), h.Get(jetstream.StreamHeader)
	after, err := strconv.ParseUint(h.Get(jetstream.LastSequenceHeader), 10, 64)
	switch {
	case status != "" && status != endOfBatch:
		return nil, fmt.Errorf("status %s", status)
	case status == "" && stream != r.stream:
		return nil, fmt.Errorf("it is of stream %q", stream) // a mirror, which may keep other messages
	case err != nil:
		return nil, err // a server before 2.11 gives one message, which does not say which one was before it
	case after != before:
		return nil, fmt.Errorf("something between messages %d and %d did not come", before, after)
	case status == endOfBatch:
		return nil, nil
	}
	m := &stored{Subject: h.Get(jetstream.SubjectHeader), Data: answer.Data, known: h.Get(jetstream.MsgIDHeader)}
	if m.Sequence, err = strconv.ParseUint(h.Get(jetstream.SequenceHeader), 10, 64); err != nil {
		return nil, err
	}
	if m.Sequence <= before {
		return nil, fmt.Errorf("message %d comes behind %d", m.Sequence, before)
	}
	return m, nil
}
