package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/determinant"
)

// lines of a peer.
const (
	messages = iota
	items
	lines
)

// peer is one worker that SetPeers named, until SetPeers no longer does.
type peer struct {
	mesh     *Mesh
	id       determinant.WorkerID
	session  uint64          // names this peer's state here. Invariant: greater than that of an earlier state of the same id
	before   *peer           // an earlier state of the same id that may not be over yet
	over     chan struct{}   // closed when nothing of it runs any more
	ctx      context.Context // ends with the peer
	cancel   context.CancelFunc
	lines    [lines]line
	boxes    boxes
	couriers [classes]courier

	wakeMessages chan struct{}
	wakeItems    chan struct{}

	running sync.WaitGroup
	mu      struct {
		sync.Mutex
		addr     string
		instance string // of the peer's process, as it said first
		ended    bool
	}
}

func (m *Mesh) newPeer(p Peer, session uint64, before *peer) *peer {
	n := &peer{
		mesh: m, id: p.ID, session: session, before: before, over: make(chan struct{}),
		wakeMessages: make(chan struct{}, 1), wakeItems: make(chan struct{}, 1),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mu.addr = p.Addr
	for c := range n.couriers {
		n.couriers[c].spawn = n.spawn
		n.couriers[c].hand = func(item []byte) { m.o.Endpoint.Control(n.id, item) }
		n.couriers[c].after = func() { notify(n.wakeItems) }
	}
	return n
}

// spawn runs f on a goroutine of the peer, unless it has ended.
func (p *peer) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.ended {
		p.running.Go(f)
	}
	return !p.mu.ended
}

// begin keeps the peer connected, if it is for this side to dial.
func (p *peer) begin() {
	if p.mesh.o.Self < p.id {
		return
	}
	for kind := range lines {
		p.spawn(func() { p.dial(kind) })
	}
}

// end cuts everything. It does not wait: over tells when all is over.
func (p *peer) end() {
	p.mu.Lock()
	p.mu.ended = true
	p.mu.Unlock()
	p.cancel()
	for kind := range p.lines {
		p.lines[kind].close(fmt.Errorf("%w: the peer is gone", ErrClosed))
	}
	for c := range p.couriers {
		p.couriers[c].end()
	}
}

// outlive waits until an earlier state of the same peer is over.
func (p *peer) outlive() {
	if p.before != nil {
		<-p.before.over
	}
}

// dial makes connections of one kind, one after the other, until the peer ends.
func (p *peer) dial(kind int) {
	p.outlive()
	o := &p.mesh.o
	pause := time.Duration(0)
	for attempt := uint64(1); p.ctx.Err() == nil; attempt++ {
		began := time.Now()
		err := p.connect(kind, attempt)
		if err == nil && time.Since(began) > o.MaxBackoff {
			pause = 0 // it was good for a while: try again at once
			continue
		}
		if err != nil && kind == messages && p.ctx.Err() == nil {
			o.Endpoint.Linked(p.id, false, err)
		}
		pause = min(max(2*pause, o.MinBackoff), o.MaxBackoff)
		wait := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-wait.C:
		case <-p.ctx.Done():
			wait.Stop()
		}
	}
}

// connect makes one connection and uses it until it breaks. The error is that of making it.
func (p *peer) connect(kind int, attempt uint64) error {
	o := &p.mesh.o
	ctx, cancel := context.WithTimeout(p.ctx, o.DialTimeout)
	defer cancel()
	p.mu.Lock()
	addr := p.mu.addr
	p.mu.Unlock()
	mine := invitation{kind: kind, attempt: attempt, standing: p.boxes.standing(p.session)}
	conn, reply, err := o.Security.Dial(ctx, addr, p.mesh.hello(p.id, mine))
	var theirs invitation
	if err == nil {
		theirs, err = p.answer(reply, kind)
		if err == nil && kind == items {
			err = p.boxes.meet(theirs.standing, &p.couriers)
		}
		if err != nil {
			hangUp(conn)
		}
	}
	o.Hooks.Connect(p.id, err)
	if err != nil {
		return err
	}
	p.use(conn, kind, p.session, attempt, theirs.standing)
	return nil
}

// answer checks what the other side says to an invitation.
func (p *peer) answer(reply Hello, kind int) (invitation, error) {
	if err := p.mesh.expects(reply); err != nil {
		return invitation{}, err
	}
	if reply.From != uint64(p.id) {
		return invitation{}, fmt.Errorf("transport: worker %d answers for worker %d", reply.From, p.id)
	}
	theirs, err := decodeInvitation(reply.Body)
	if err == nil && theirs.kind != kind {
		err = fmt.Errorf("%w: kind of a connection", ErrCorrupt)
	}
	if err == nil {
		err = p.recognise(reply.Instance)
	}
	return theirs, err
}

// use runs a connection until it breaks.
func (p *peer) use(conn *Conn, kind int, session, attempt uint64, theirs standing) {
	cause := p.lines[kind].use(session, attempt, conn, func(s *strand) {
		if kind == messages {
			p.runMessages(s)
		} else {
			p.runItems(s, theirs)
		}
	})
	p.mesh.o.Hooks.Broken(p.id, cause)
}

// recognise notes the peer's process. Ids of workers are never used twice.
func (p *peer) recognise(instance string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.instance == "" {
		p.mu.instance = instance
	}
	if p.mu.instance != instance {
		return fmt.Errorf("transport: worker %d is process %q, and not %q", p.id, p.mu.instance, instance)
	}
	return nil
}

// accept decides about a connection that the peer dialled.
func (p *peer) accept(h Hello) (Hello, func(*Conn), error) {
	theirs, err := decodeInvitation(h.Body)
	if err == nil {
		err = p.recognise(h.Instance)
	}
	if err == nil {
		err = p.lines[theirs.kind].newer(theirs.standing.session, theirs.attempt)
	}
	if err == nil && theirs.kind == items {
		err = p.boxes.meet(theirs.standing, &p.couriers)
	}
	if err != nil {
		return Hello{}, nil, err
	}
	p.mesh.o.Hooks.Connect(p.id, nil)
	reply := invitation{kind: theirs.kind, attempt: theirs.attempt, standing: p.boxes.standing(p.session)}
	return p.mesh.hello(p.id, reply), func(c *Conn) {
		done := make(chan struct{})
		if p.spawn(func() {
			defer close(done)
			p.outlive()
			p.use(c, theirs.kind, theirs.standing.session, theirs.attempt, theirs.standing)
		}) {
			<-done
		}
	}, nil
}

// invitation is the body of the Hello with which workers connect, and of the answer.
type invitation struct {
	kind     int
	attempt  uint64 // counts the connections of this kind that a session has dialled
	standing standing
}

func (i *invitation) encode() []byte {
	uv := binary.AppendUvarint
	b := uv(uv(uv(uv(nil, uint64(i.kind)), i.attempt), i.standing.session), i.standing.known)
	for c := range classes {
		b = uv(uv(b, i.standing.received[c]), i.standing.begin[c])
	}
	return b
}

func decodeInvitation(p []byte) (invitation, error) {
	d := decoder{p: p}
	i := invitation{kind: int(d.below(lines)), attempt: d.uvarint()}
	i.standing.session, i.standing.known = d.uvarint(), d.uvarint()
	for c := range classes {
		i.standing.received[c], i.standing.begin[c] = d.uvarint(), d.uvarint()
	}
	if d.bad || len(d.p) > 0 || i.standing.session == 0 {
		return invitation{}, fmt.Errorf("%w: invitation to a link", ErrCorrupt)
	}
	return i, nil
}

// notify sets a flag that a goroutine waits for.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

var errUnknownPeer = errors.New("transport: not a peer of this worker")
