package http

import (
	"errors"
	"fmt"
	"time"
)

// ServerOptions are those of an ingest server. Nodes and Dir must be given; otherwise zero is the default.
type ServerOptions struct {
	// Nodes are all servers, in an order that is the same for each. The log of each is copied to the next. A single one keeps no
	// copy.
	Nodes []Node
	// Name says which of Nodes this server is. It may be empty if there is one only.
	Name string
	// Dir keeps the logs, in a folder per server, so that servers of one machine may share it. It must survive the process.
	Dir string
	// Listen is where to listen, if that is not what the server's URL says.
	Listen string
	Access Access
	// MaxBody and MaxLine bound a request and one line of it, in bytes. Defaults 8 MiB and 1 MiB; at most 64 MiB. Beyond: 413.
	MaxBody, MaxLine int64
	// MaxUnread is how many bytes of this server's log the job may not have read yet. Default 256 MiB. Beyond: 429.
	MaxUnread int64
	// MaxBuffered bounds the bodies of all requests under way, in bytes. Default 64 MiB. Beyond: 429.
	MaxBuffered int64
	// AckTimeout is how long a request may wait until it is durable. Default 10 s. Beyond: 503, and it may be taken later.
	AckTimeout time.Duration
	// SegmentBytes is when a file of the log is ended and the next begun. Default 64 MiB.
	SegmentBytes int64
	// Settle is for how long a job must have gone on reading behind a place before what is below it may be removed. It must be
	// longer than a checkpoint ever takes. Default 10 min.
	Settle time.Duration
	// Retain is how long requests and their keys are kept at least, RetainBytes how many bytes at most if the job has read them.
	// Defaults 15 min and 4 GiB.
	Retain      time.Duration
	RetainBytes int64
	// MaxKeys is how many idempotency keys a log remembers, the newest ones. Default 1,000,000.
	MaxKeys int
	// Failed, if it is set, hears of an error that ends the server's taking of requests. The server goes on giving out what it has.
	Failed func(error)
}

const mostBody = 64 << 20

// EnsureDefaults fills in what is zero.
func (o *ServerOptions) EnsureDefaults() {
	if o.Name == "" && len(o.Nodes) == 1 {
		o.Name = o.Nodes[0].Name
	}
	for _, d := range []struct {
		field *int64
		value int64
	}{
		{&o.MaxBody, 8 << 20}, {&o.MaxLine, 1 << 20}, {&o.MaxUnread, 256 << 20}, {&o.MaxBuffered, 64 << 20}, {&o.SegmentBytes, 64 << 20},
		{&o.RetainBytes, 4 << 30},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&o.AckTimeout, 10 * time.Second}, {&o.Settle, 10 * time.Minute}, {&o.Retain, 15 * time.Minute}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = 1_000_000
	}
	o.MaxLine = min(o.MaxLine, o.MaxBody)
}

// Validate tells what is wrong with the options.
func (o *ServerOptions) Validate() error {
	if err := checkNodes(o.Nodes); err != nil {
		return err
	}
	if err := o.Access.Validate(); err != nil {
		return err
	}
	switch {
	case indexOf(o.Nodes, o.Name) < 0:
		return fmt.Errorf("http: server %q is none of the %d that are listed", o.Name, len(o.Nodes))
	case o.Dir == "":
		return errors.New("http: an ingest server needs a directory")
	case o.MaxBody < 1 || o.MaxBody > mostBody || o.MaxLine < 1:
		return fmt.Errorf("http: bodies of %d bytes, lines of %d: want 1 to %d", o.MaxBody, o.MaxLine, mostBody)
	case o.MaxUnread < o.MaxBody || o.MaxBuffered < o.MaxBody:
		return fmt.Errorf("http: %d bytes unread or %d buffered are less than one body may have: %d", o.MaxUnread, o.MaxBuffered, o.MaxBody)
	case o.AckTimeout < 0 || o.Settle < 0 || o.Retain < 0 || o.RetainBytes < 0 || o.SegmentBytes < 0 || o.MaxKeys < 0:
		return errors.New("http: an option is negative")
	}
	return nil
}
