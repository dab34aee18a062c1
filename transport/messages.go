package transport

import (
	"fmt"
	"sync"
	"time"
)

// flushAt is how much a writer gathers before it sends. One message may be longer.
const flushAt = 256 << 10

// runMessages is the life of one data stream: Relink, then a writer and a reader until the connection breaks.
func (p *peer) runMessages(s *strand) {
	e := p.mesh.o.Endpoint
	e.Relink(p.id)
	e.Linked(p.id, true, nil)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := p.writeMessages(s.conn, stop); err != nil {
			s.fail(err)
		}
	})
	s.fail(p.readMessages(s.conn))
	close(stop)
	writer.Wait()
	e.Linked(p.id, false, s.cause())
}

func (p *peer) readMessages(c *Conn) error {
	c.silence = p.mesh.silence()
	a := assembler{limits: p.mesh.o.Limits, detach: true}
	for {
		kind, body, err := c.Read()
		if err != nil {
			return err
		}
		if kind == kindPing {
			continue
		}
		a.kept = false
		m, err := a.add(kind, body)
		if err != nil {
			return err
		}
		if a.kept {
			c.in.lent = true
		}
		if m == nil {
			continue
		}
		if m.From != p.id {
			return fmt.Errorf("%w: message of worker %d on the link with %d", ErrCorrupt, m.From, p.id)
		}
		p.mesh.o.Hooks.Received(p.id, a.started, int(a.bytes))
		p.mesh.o.Endpoint.Receive(m)
	}
}

// writeMessages sends what the endpoint has, as long as it has any, and then waits to be woken. It returns nil when stop is
// closed.
func (p *peer) writeMessages(c *Conn, stop <-chan struct{}) error {
	tick := time.NewTicker(p.mesh.o.Keepalive)
	defer tick.Stop()
	var scratch []byte
	for {
		var err error
		if scratch, err = p.gatherMessages(c, scratch); err != nil {
			return err
		}
		if c.Queued() > 0 {
			if err := p.flush(c); err != nil {
				return err
			}
			select {
			case <-stop:
				return nil
			default:
				continue
			}
		}
		select {
		case <-p.wakeMessages:
		case <-stop:
			return nil
		case <-tick.C:
			if err := c.Write(kindPing); err != nil {
				return err
			}
		}
	}
}

// gatherMessages queues messages up to a flush.
func (p *peer) gatherMessages(c *Conn, scratch []byte) ([]byte, error) {
	for c.Queued() < flushAt {
		m := p.mesh.o.Endpoint.Write(p.id)
		if m == nil {
			break
		}
		var err error
		if scratch, err = c.out.message(m, scratch); err != nil {
			return scratch, err
		}
	}
	return scratch, nil
}

func (p *peer) flush(c *Conn) error {
	frames, bytes := c.out.frames, c.out.bytes
	if err := c.Flush(); err != nil {
		return err
	}
	p.mesh.o.Hooks.Sent(p.id, frames, bytes)
	return nil
}
