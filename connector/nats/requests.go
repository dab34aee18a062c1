package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// requests asks the servers of one link about one stream. Every request but batch is answered by the stream's leader: the client library's
// own way of reading single messages may ask a replica that is behind.
type requests struct {
	link   *link
	stream string
	// step stands around everything that changes something outside; nil except in tests.
	step func(do, half func() error) error
	// waiting is why a call waits, for people; nil while none does.
	waiting atomic.Pointer[string]
	say     func(why string) // is told of it too; may be nil
}

// stored is a message of a stream.
type stored struct {
	Subject  string `json:"subject"`
	Sequence uint64 `json:"seq"`
	Headers  []byte `json:"hdrs"`
	Data     []byte `json:"data"`
	known    string // its id, if its headers were decoded
}

// id gives the message's Nats-Msg-Id.
func (m *stored) id() string {
	if m.known != "" {
		return m.known
	}
	h, err := client.DecodeHeadersMsg(m.Headers)
	if err != nil {
		return ""
	}
	return h.Get(jetstream.MsgIDHeader)
}

// change does something that changes the stream.
func (r *requests) change(do, half func() error) error {
	if r.step == nil {
		return do()
	}
	return r.step(do, half)
}

// call makes one request of the JetStream API and decodes what comes back, unless that is an error.
func (r *requests) call(ctx context.Context, what string, request, response any) error {
	conn, _, err := r.link.get()
	if err != nil {
		return err
	}
	var body []byte
	if request != nil {
		if body, err = json.Marshal(request); err != nil {
			return fmt.Errorf("nats: %w", err)
		}
	}
	ctx, done := r.link.bounded(ctx, r.link.options.Timeout)
	defer done()
	answer, err := conn.RequestWithContext(ctx, r.link.options.prefix()+what+"."+r.stream, body)
	if err != nil {
		return fmt.Errorf("nats: %s of %s: %w", what, r.stream, because(ctx, err))
	}
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err = json.Unmarshal(answer.Data, &failed); err == nil && failed.Error == nil && response != nil {
		err = json.Unmarshal(answer.Data, response)
	}
	switch {
	case err != nil:
		return fmt.Errorf("nats: the answer to %s of %s: %w", what, r.stream, err)
	case failed.Error != nil && failed.Error.ErrorCode == codeNoStream:
		return fmt.Errorf("%w: %s", ErrNoStream, r.stream)
	case failed.Error != nil:
		return fmt.Errorf("nats: %s of %s: %w", what, r.stream, failed.Error)
	}
	return nil
}

// info describes the stream as its leader has it now.
func (r *requests) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	var i jetstream.StreamInfo
	return &i, r.call(ctx, "STREAM.INFO", nil, &i)
}

// question is which message is asked for.
type question struct {
	Seq     uint64 `json:"seq,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"` // the first of a subject from Seq on
	LastFor string `json:"last_by_subj,omitempty"`
}

// message gives one message, nil if there is none.
func (r *requests) message(ctx context.Context, q question) (*stored, error) {
	var answer struct {
		Message stored `json:"message"`
	}
	err := r.call(ctx, "STREAM.MSG.GET", &q, &answer)
	if isCode(err, codeNoMessage) {
		return nil, nil
	}
	return &answer.Message, err
}

// ask is message, and waits for the server.
func (r *requests) ask(ctx context.Context, q question) (m *stored, err error) {
	err = r.persist(ctx, "reading", func() error {
		m, err = r.message(ctx, q)
		return err
	})
	return m, err
}

// remove deletes one message. One that is gone is no error.
func (r *requests) remove(ctx context.Context, sequence uint64) error {
	return r.change(func() error {
		err := r.call(ctx, "STREAM.MSG.DELETE", map[string]any{"seq": sequence, "no_erase": true}, nil)
		if isCode(err, codeNoMessage) || isCode(err, codeDeleteNotFound) {
			return nil
		}
		return err
	}, nil)
}

// purge removes the messages of a subject below a sequence.
func (r *requests) purge(ctx context.Context, subject string, below uint64) error {
	return r.change(func() error {
		return r.call(ctx, "STREAM.PURGE", map[string]any{"filter": subject, "seq": below}, nil)
	}, nil)
}

// outgoing is a message to be stored.
type outgoing struct {
	subject, id string
	data        []byte
	record      uint64 // which record of the output it is, from 1 on; 0 on the hidden subject
}

// place is where the next message goes: behind a sequence and, if it is known, behind the message that is there.
type place struct {
	sequence uint64
	id       string
}

// send stores messages at a place, each behind the one before it, and waits until the last one is acknowledged. After an error any
// number of them may be stored, and more may follow: whoever sends looks what is there.
//
// Each message but the first names the one before it and is stored only if that is the stream's last. A sequence would not do: where
// another message takes the place of the first, the second's condition on a sequence would hold.
func (r *requests) send(ctx context.Context, at place, plan []outgoing, fenced bool) error {
	conn, _, err := r.link.get()
	if err != nil {
		return err
	}
	ctx, done := r.link.bounded(ctx, r.link.options.Timeout)
	defer done()
	publish := func(n int) error {
		for i := range n {
			if err := conn.PublishMsg(linked(at, plan, i, fenced)); err != nil {
				return fmt.Errorf("nats: publishing to %s: %w", r.stream, err)
			}
		}
		return nil
	}
	last := len(plan) - 1
	return r.change(func() error {
		if err := publish(last); err != nil {
			return err
		}
		answer, err := conn.RequestMsgWithContext(ctx, linked(at, plan, last, fenced))
		if err != nil {
			return fmt.Errorf("nats: publishing to %s: %w", r.stream, because(ctx, err))
		}
		return acknowledged(answer.Data, r.stream, at.sequence+uint64(len(plan)), fenced)
	}, func() error {
		if err := publish((last + 1) / 2); err != nil {
			return err
		}
		if err := conn.FlushWithContext(ctx); err != nil {
			return fmt.Errorf("nats: %w", err)
		}
		return nil
	})
}

// linked makes the message i of a plan with its condition.
func linked(at place, plan []outgoing, i int, fenced bool) *client.Msg {
	m := &plan[i]
	msg := &client.Msg{Subject: m.subject, Data: m.data, Header: make(client.Header, 3)}
	msg.Header[jetstream.MsgIDHeader] = []string{m.id}
	if !fenced {
		return msg
	}
	before := at.id
	if i == 0 {
		msg.Header[jetstream.ExpectedLastSeqHeader] = []string{strconv.FormatUint(at.sequence, 10)}
	} else {
		before = plan[i-1].id
	}
	if before != "" {
		msg.Header[jetstream.ExpectedLastMsgIDHeader] = []string{before}
	}
	return msg
}

// acknowledged reads the server's answer to a message that was to get a sequence.
func acknowledged(answer []byte, stream string, sequence uint64, fenced bool) error {
	var ack struct {
		Error    *jetstream.APIError `json:"error"`
		Stream   string              `json:"stream"`
		Sequence uint64              `json:"seq"`
	}
	if err := json.Unmarshal(answer, &ack); err != nil {
		return fmt.Errorf("nats: the acknowledgement of %s: %w", stream, err)
	}
	switch {
	case ack.Error != nil:
		return fmt.Errorf("nats: publishing to %s: %w", stream, ack.Error)
	case ack.Stream != stream:
		return fmt.Errorf("%w: what was published to %s went to stream %q", ErrUnfit, stream, ack.Stream)
	case ack.Sequence != sequence && fenced:
		return fmt.Errorf("%w: a message of %s became number %d and not %d", errElsewhere, stream, ack.Sequence, sequence)
	}
	return nil
}

// errElsewhere says that a message is at another sequence than it was made for: what is there must be looked at.
var errElsewhere = errors.New("nats: not where it belongs")

const (
	firstPause = 2 * time.Millisecond
	longPause  = 250 * time.Millisecond
	loudAfter  = 300 * time.Millisecond // a shorter wait is not worth a word
)

// persist calls f until it succeeds or fails for a reason that does not go away. It says meanwhile why it waits.
func (r *requests) persist(ctx context.Context, doing string, f func() error) error {
	w := wait{requests: r, doing: doing}
	defer w.over()
	for {
		err := f()
		if err == nil || ctx.Err() == nil && !passing(err) {
			return err
		}
		if err := w.pause(ctx, err); err != nil {
			return err
		}
	}
}

// wait is a wait for a server, in pauses that grow.
type wait struct {
	requests *requests
	doing    string
	length   time.Duration
	since    time.Time
	said     bool
}

// pause lets some time pass, because of err.
func (w *wait) pause(ctx context.Context, err error) error {
	if w.length == 0 {
		w.length, w.since = firstPause, time.Now()
	}
	if time.Since(w.since) >= loudAfter {
		why := fmt.Sprintf("%s waits since %s: %v; %s, %s", w.doing, w.since.UTC().Format(time.RFC3339), err, w.requests.link.where(),
			w.requests.link.state())
		w.said = true
		w.requests.waiting.Store(&why)
		if w.requests.say != nil {
			w.requests.say(why)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(w.length)
	defer timer.Stop()
	w.length = min(2*w.length, longPause)
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// over ends the wait.
func (w *wait) over() {
	if !w.said {
		return
	}
	w.requests.waiting.Store(nil)
	if w.requests.say != nil {
		w.requests.say("")
	}
}

// why tells what a call waits for; empty if none does.
func (r *requests) why() string {
	if w := r.waiting.Load(); w != nil {
		return *w
	}
	return ""
}

// same tells whether a message is the one that was to be stored. Its id may be that of an earlier try.
func (m *stored) same(o *outgoing) bool { return m.Subject == o.subject && bytes.Equal(m.Data, o.data) }
