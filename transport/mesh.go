package transport

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-stream/understudy/determinant"
)

// PurposeLink is the purpose of the connections between workers.
const PurposeLink = "link"

// Bounds of a mesh. Each is the default of the option of that name.
const (
	DefaultKeepalive   = time.Second
	DefaultDialTimeout = 2 * time.Second
	DefaultMinBackoff  = 5 * time.Millisecond
	DefaultMaxBackoff  = 250 * time.Millisecond
)

const silentKeepalives = 3 // a link is cut after this many without a byte

// Endpoint is a worker, as its links see it. No method is called with a lock of the mesh held, so each may call Wake, Send,
// SetPeers, Cut and Backlog; none may call Close. For one peer, Write is called from one goroutine at a time, and so is Receive;
// Relink is called while neither runs.
type Endpoint interface {
	// Write makes the next message for peer; nil: nothing now. It is called after Wake(peer), and after each message until nil.
	// The message and all that it refers to must not change any more.
	Write(peer determinant.WorkerID) *Message
	// Receive takes a message. It and all that it refers to belong to the endpoint. Its From is the peer, authenticated.
	Receive(m *Message)
	// Relink says that a new stream to and from peer begins, on both ends. It is called after the last Write and Receive of the
	// former stream and before the first of the new one. A message of the former stream that was not received by then is lost.
	// It is called for the first stream too, and may be called for one that breaks before it carries anything.
	Relink(peer determinant.WorkerID)
	// Control takes an item that the peer gave to Send: each once, and in order among those that are bulk and among those that
	// are not. The two kinds come from one goroutine each. The item belongs to the endpoint.
	Control(from determinant.WorkerID, item []byte)
	// Linked says that the data stream with a peer is up (after Relink), or that it broke (after the last Receive), or that
	// another attempt to dial it failed; cause says why.
	Linked(peer determinant.WorkerID, up bool, cause error)
}

// Peer is a worker to be linked with.
type Peer struct {
	ID   determinant.WorkerID
	Addr string // host:port
}

// MeshOptions are a mesh's.
type MeshOptions struct {
	Self     determinant.WorkerID
	Cluster  string
	Instance string // names this start of the process, in handshakes
	Security Security
	Endpoint Endpoint
	Limits   Limits

	Keepalive              time.Duration // a link that is silent for three times as long is cut
	DialTimeout            time.Duration // of one attempt, handshake included
	MinBackoff, MaxBackoff time.Duration // between attempts

	Hooks MeshHooks
}

// MeshHooks are told what happens, for metrics. Each may be nil, may be called from several goroutines at once, and must not
// block.
type MeshHooks struct {
	Sent     func(peer determinant.WorkerID, frames, bytes int) // after each write on a data stream
	Received func(peer determinant.WorkerID, frames, bytes int) // for each message that came on one
	Connect  func(peer determinant.WorkerID, err error)         // after each attempt to make a connection of either kind; nil: it is made
	Broken   func(peer determinant.WorkerID, cause error)       // a connection of either kind is not in use any more
	Unknown  func(peer determinant.WorkerID)                    // one that SetPeers does not name wanted to connect: it is dead, or not known yet
}

func (o *MeshOptions) ensureDefaults() {
	if o.Keepalive == 0 {
		o.Keepalive = DefaultKeepalive
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = DefaultDialTimeout
	}
	if o.MinBackoff == 0 {
		o.MinBackoff = DefaultMinBackoff
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = DefaultMaxBackoff
	}
	h := &o.Hooks
	if h.Sent == nil {
		h.Sent = func(determinant.WorkerID, int, int) {}
	}
	if h.Received == nil {
		h.Received = func(determinant.WorkerID, int, int) {}
	}
	if h.Connect == nil {
		h.Connect = func(determinant.WorkerID, error) {}
	}
	if h.Broken == nil {
		h.Broken = func(determinant.WorkerID, error) {}
	}
	if h.Unknown == nil {
		h.Unknown = func(determinant.WorkerID) {}
	}
}

// Mesh is all links of one worker: with each peer a connection for messages and one for control items. The worker with the
// greater id dials. All methods except Close return at once, and may be called from any goroutine, from within the Endpoint too.
type Mesh struct {
	o     MeshOptions
	peers atomic.Pointer[map[determinant.WorkerID]*peer] // replaced, never changed
	self  loopback

	running sync.WaitGroup // peers that are not over, and what runs for self
	mu      struct {
		sync.Mutex
		closed   bool
		sessions uint64
		ending   map[determinant.WorkerID]*peer // not over yet; the latest of each id
	}
}

// NewMesh returns a mesh without peers.
func NewMesh(o MeshOptions) *Mesh {
	o.ensureDefaults()
	m := &Mesh{o: o}
	m.peers.Store(&map[determinant.WorkerID]*peer{})
	m.mu.ending = map[determinant.WorkerID]*peer{}
	m.self.init(m)
	return m
}

// silence is how long a read may wait, silentRounds times.
func (m *Mesh) silence() time.Duration { return m.o.Keepalive * silentKeepalives / silentRounds }

// SetPeers says with whom to be linked. Links with those who are gone are cut and forgotten; a call of the Endpoint for them that
// is under way, or about to begin, still happens. A peer equal to Self is ignored. A peer whose address changed is dialled
// there from the next attempt on.
func (m *Mesh) SetPeers(ps []Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return
	}
	old := *m.peers.Load()
	peers := make(map[determinant.WorkerID]*peer, len(ps))
	var begun []*peer
	for _, p := range ps {
		if p.ID == m.o.Self || peers[p.ID] != nil {
			continue
		}
		n := old[p.ID]
		if n == nil {
			m.mu.sessions++
			n = m.newPeer(p, m.mu.sessions, m.mu.ending[p.ID])
			begun = append(begun, n)
		}
		n.mu.Lock()
		n.mu.addr = p.Addr
		n.mu.Unlock()
		peers[p.ID] = n
	}
	m.peers.Store(&peers)
	for id, p := range old {
		if peers[id] == nil {
			m.end(p)
		}
	}
	for _, p := range begun {
		p.begin()
	}
}

// end ends a peer, and notes when it is over. m.mu is held.
func (m *Mesh) end(p *peer) {
	m.mu.ending[p.id] = p
	p.end()
	m.running.Go(func() {
		p.running.Wait()
		p.outlive()
		close(p.over)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.mu.ending[p.id] == p {
			delete(m.mu.ending, p.id)
		}
	})
}

func (m *Mesh) peer(id determinant.WorkerID) *peer { return (*m.peers.Load())[id] }

// hello is what this worker says of itself to another.
func (m *Mesh) hello(to determinant.WorkerID, i invitation) Hello {
	return Hello{
		Purpose: PurposeLink, Cluster: m.o.Cluster, From: uint64(m.o.Self), To: uint64(to), Instance: m.o.Instance, Body: i.encode(),
	}
}

// expects checks that a hello is meant for this worker.
func (m *Mesh) expects(h Hello) error {
	switch {
	case h.Purpose != PurposeLink:
		return fmt.Errorf("transport: a connection for %q is no link", h.Purpose)
	case h.Cluster != m.o.Cluster:
		return fmt.Errorf("transport: this is cluster %q, and not %q", m.o.Cluster, h.Cluster)
	case h.To != uint64(m.o.Self):
		return fmt.Errorf("transport: this is worker %d, and not %d", m.o.Self, h.To)
	}
	return nil
}

// Accept is a Server's Handle for connections with PurposeLink.
func (m *Mesh) Accept(h Hello) (Hello, func(*Conn), error) {
	if err := m.expects(h); err != nil {
		return Hello{}, nil, err
	}
	p := m.peer(determinant.WorkerID(h.From))
	if p == nil {
		m.o.Hooks.Unknown(determinant.WorkerID(h.From))
		return Hello{}, nil, fmt.Errorf("%w: worker %d", errUnknownPeer, h.From)
	}
	if p.id < m.o.Self {
		return Hello{}, nil, fmt.Errorf("transport: worker %d is to be dialled by worker %d", p.id, m.o.Self)
	}
	return p.accept(h)
}

// Wake says that Endpoint.Write may have a message for peer. With peer equal to Self, what Write gives is handed to Receive
// as it is. Unknown peers are ignored: a new stream begins with a call of Write anyway.
func (m *Mesh) Wake(peer determinant.WorkerID) {
	if peer == m.o.Self {
		m.self.wake()
	} else if p := m.peer(peer); p != nil {
		notify(p.wakeMessages)
	}
}

// Send has the item handed to the peer's Endpoint.Control, once, across broken connections, as long as SetPeers names the peer
// on both sides. Items of bulk go when no others are to be sent. The item must not change any more. Nothing is sent, and false
// returned, if the peer is unknown or the item longer than MaxItem. What waits is kept in memory: see Backlog.
func (m *Mesh) Send(to determinant.WorkerID, item []byte, bulkItem bool) bool {
	class := small
	if bulkItem {
		class = bulk
	}
	if uint64(len(item)) > MaxItem {
		return false
	}
	if to == m.o.Self {
		return m.self.send(item, class)
	}
	p := m.peer(to)
	if p == nil {
		return false
	}
	p.boxes.Lock()
	p.boxes.out[class].push(item)
	p.boxes.Unlock()
	notify(p.wakeItems)
	return true
}

// Backlog is how many bytes of items the peer has not taken yet. Whoever sends images to a standby holds back by it.
func (m *Mesh) Backlog(peer determinant.WorkerID, bulkItems bool) int64 {
	class := small
	if bulkItems {
		class = bulk
	}
	if peer == m.o.Self {
		return int64(m.self.couriers[class].held())
	}
	p := m.peer(peer)
	if p == nil {
		return 0
	}
	p.boxes.Lock()
	defer p.boxes.Unlock()
	return int64(p.boxes.out[class].backlog())
}

// Cut closes the connections with a peer as if the network had. They are made again.
func (m *Mesh) Cut(peer determinant.WorkerID) {
	if p := m.peer(peer); p != nil {
		for kind := range p.lines {
			p.lines[kind].cut(ErrCut)
		}
	}
}

// Close cuts all links and returns when no call of the Endpoint is under way.
func (m *Mesh) Close() error {
	m.mu.Lock()
	if !m.mu.closed {
		m.mu.closed = true
		for _, p := range maps.All(*m.peers.Swap(&map[determinant.WorkerID]*peer{})) {
			m.end(p)
		}
		m.self.end()
	}
	m.mu.Unlock()
	m.running.Wait()
	return nil
}
