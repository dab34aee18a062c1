package transport

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// classes of items: each is a stream of its own.
const (
	small = iota
	bulk
	classes
)

const (
	// windows bound what may be under way and not taken, in bytes. That of bulk is what a small item may find before it in
	// the system's buffers.
	smallWindow = 4 << 20
	bulkWindow  = 512 << 10
	pieceSize   = 64 << 10  // of an item's bytes go into one frame
	smallAtOnce = 256 << 10 // of small items go out before one piece of bulk
	ackEvery    = 8         // a partly received item is acknowledged after this part of its window
)

var windows = [classes]uint64{smallWindow, bulkWindow}

// boxes is what this side knows of the items on their way to and from a peer.
type boxes struct {
	sync.Mutex
	session uint64 // of the peer: when it forgets us, and hears of us again, it counts anew. 0: not known yet
	out     [classes]outbox
	in      [classes]inbox
}

// standing is what the two sides tell each other of their boxes when they connect.
type standing struct {
	session  uint64          // of who speaks
	known    uint64          // session of the other side, as far as the speaker knows; 0: not at all
	received [classes]uint64 // of that session
	begin    [classes]uint64 // where the streams of the speaker begin for one who does not know its session
}

func (b *boxes) standing(session uint64) standing {
	b.Lock()
	defer b.Unlock()
	s := standing{session: session, known: b.session}
	for c := range classes {
		s.received[c], s.begin[c] = b.in[c].received, b.out[c].begin()
	}
	return s
}

// meet takes the other side's word for its session. Streams of a new one begin where it says.
func (b *boxes) meet(s standing, couriers *[classes]courier) error {
	b.Lock()
	defer b.Unlock()
	if s.session < b.session {
		return fmt.Errorf("transport: session %d is older than %d", s.session, b.session)
	}
	if s.session == b.session {
		return nil
	}
	b.session = s.session
	for c := range classes {
		b.in[c] = inbox{received: s.begin[c]}
		couriers[c].renumber()
	}
	return nil
}

// resume makes the streams go on from where the other side says that it is.
func (b *boxes) resume(session uint64, s standing) error {
	b.Lock()
	defer b.Unlock()
	for c := range classes {
		at := s.received[c]
		if s.known != session {
			at = b.out[c].begin()
		}
		if err := b.out[c].resume(at); err != nil {
			return err
		}
	}
	return nil
}

// itemStrand is one connection for items, in use.
type itemStrand struct {
	p       *peer
	conn    *Conn
	session uint64 // of the peer
	acked   [classes]uint64
	parts   [][]byte
}

// runItems is the life of one connection for items.
func (p *peer) runItems(s *strand, theirs standing) {
	if err := p.boxes.resume(p.session, theirs); err != nil {
		s.fail(err)
		return
	}
	i := &itemStrand{p: p, conn: s.conn, session: theirs.session}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := i.write(stop); err != nil {
			s.fail(err)
		}
	})
	s.fail(i.read())
	close(stop)
	writer.Wait()
}

func (i *itemStrand) read() error {
	i.conn.silence = i.p.mesh.silence()
	for {
		kind, body, err := i.conn.Read()
		if err != nil {
			return err
		}
		switch kind {
		case kindPing:
		case kindSmall, kindBulk:
			err = i.piece(int(kind)-kindSmall, body)
		case kindTaken:
			err = i.taken(body)
		default:
			err = fmt.Errorf("%w: frame of kind %d among items", ErrCorrupt, kind)
		}
		if err != nil {
			return err
		}
	}
}

func (i *itemStrand) piece(class int, body []byte) error {
	d := decoder{p: body}
	pos := d.uvarint()
	if d.bad {
		return fmt.Errorf("%w: piece of an item", ErrCorrupt)
	}
	b := &i.p.boxes
	b.Lock()
	if b.session != i.session {
		b.Unlock()
		return fmt.Errorf("%w: the peer has begun a new session", ErrClosed)
	}
	in := &b.in[class]
	before := in.received
	err := in.piece(pos, d.p, i.p.couriers[class].post)
	part := windows[class] / ackEvery
	due := in.received/part != before/part
	b.Unlock()
	if due {
		notify(i.p.wakeItems)
	}
	return err
}

func (i *itemStrand) taken(body []byte) error {
	d := decoder{p: body}
	var at [classes]uint64
	for c := range at {
		at[c] = d.uvarint()
	}
	if d.bad || len(d.p) > 0 {
		return fmt.Errorf("%w: acknowledgement of items", ErrCorrupt)
	}
	b := &i.p.boxes
	b.Lock()
	defer b.Unlock()
	if b.session != i.session {
		return fmt.Errorf("%w: the peer has begun a new session", ErrClosed)
	}
	for c := range at {
		if err := b.out[c].acknowledge(at[c]); err != nil {
			return err
		}
	}
	notify(i.p.wakeItems)
	return nil
}

// write sends acknowledgements and pieces as long as there are any, and then waits to be woken. It returns nil when stop is
// closed.
func (i *itemStrand) write(stop <-chan struct{}) error {
	tick := time.NewTicker(i.p.mesh.o.Keepalive)
	defer tick.Stop()
	for {
		if err := i.gather(); err != nil {
			return err
		}
		if i.conn.Queued() > 0 {
			if err := i.conn.Flush(); err != nil {
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
		case <-i.p.wakeItems:
		case <-stop:
			return nil
		case <-tick.C:
			if err := i.conn.Write(kindPing); err != nil {
				return err
			}
		}
	}
}

// gather queues what is to be acknowledged, small items, and then one piece of bulk.
func (i *itemStrand) gather() error {
	b := &i.p.boxes
	b.Lock()
	defer b.Unlock()
	var taken [classes]uint64
	for c := range taken {
		// The bytes of an item count when they come, or one longer than the window would never be whole; and then again, all
		// together, until it is handed on.
		taken[c] = max(i.acked[c], b.in[c].received-i.p.couriers[c].held())
	}
	if taken != i.acked {
		i.acked = taken
		var body [classes * binary.MaxVarintLen64]byte
		ack := body[:0]
		for _, at := range taken {
			ack = binary.AppendUvarint(ack, at)
		}
		if err := i.conn.out.add(kindTaken, ack); err != nil {
			return err
		}
	}
	for i.conn.Queued() < smallAtOnce {
		more, err := i.next(b, small)
		if err == nil && !more {
			_, err = i.next(b, bulk)
			return err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// next queues a piece of a class.
func (i *itemStrand) next(b *boxes, class int) (bool, error) {
	pos, parts := b.out[class].next(i.parts[:0], pieceSize, windows[class])
	defer clear(parts)
	i.parts = parts
	if len(parts) == 0 {
		return false, nil
	}
	var head [binary.MaxVarintLen64]byte
	return true, i.conn.out.add(byte(kindSmall+class), binary.AppendUvarint(head[:0], pos), parts...)
}
