package raftmeta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// maxServed bounds the connections that one peer may have here. A new one beyond it takes the place of the oldest, which the peer
// has most likely given up.
const maxServed = 16

// errClosed: the node is being closed, or has failed.
var errClosed = errors.New("raftmeta: node is closed")

// network makes a raft.StreamLayer of the caller's connections. To Raft, a node's address is its ID; where that is is looked
// up here, so that addresses may change between two starts.
type network struct {
	self     string
	peers    []Peer
	digest   [sha256.Size]byte
	dial     func(ctx context.Context, to Peer) (net.Conn, error)
	fault    *fault
	ctx      context.Context // ends with the node
	cancel   context.CancelFunc
	accepted chan net.Conn
	over     chan struct{} // closed when Raft's transport is
	serving  sync.WaitGroup

	mu struct {
		sync.Mutex
		cut    bool
		links  map[*link]bool
		served map[string][]*link // by peer, oldest first
	}
}

func newNetwork(o *Options, f *fault) *network {
	n := &network{self: o.ID, peers: o.Peers, digest: identityOf(o).digest(), dial: o.Dial, fault: f}
	n.accepted, n.over = make(chan net.Conn), make(chan struct{})
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mu.links = make(map[*link]bool)
	n.mu.served = make(map[string][]*link)
	return n
}

func (n *network) find(id string) (Peer, bool) {
	i := slices.IndexFunc(n.peers, func(p Peer) bool { return p.ID == id })
	if i < 0 {
		return Peer{}, false
	}
	return n.peers[i], true
}

// serve hands a connection to Raft and returns when it is closed.
func (n *network) serve(conn net.Conn) error {
	l, err := n.track(conn)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer n.serving.Done()
	from, err := welcome(l, n.digest, n.self, func(id string) bool { _, ok := n.find(id); return ok })
	if err != nil {
		_ = l.Close()
		return err
	}
	n.replaceOldest(from, l)
	select {
	case n.accepted <- l:
	case <-n.ctx.Done():
		_ = l.Close()
	}
	<-l.closed
	return nil
}

// track makes a link, which is closed with the network. serving counts it until the caller says Done.
func (n *network) track(conn net.Conn) (*link, error) {
	l := &link{Conn: conn, network: n, closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.cut {
		return nil, errClosed
	}
	n.mu.links[l] = true
	n.serving.Add(1)
	return l, nil
}

// replaceOldest counts l among those that serve the peer.
func (n *network) replaceOldest(peer string, l *link) {
	n.mu.Lock()
	list := append(n.mu.served[peer], l)
	var oldest *link
	if len(list) > maxServed {
		oldest, list = list[0], list[1:]
	}
	n.mu.served[peer] = list
	l.peer = peer
	n.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
}

func (n *network) forget(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.links, l)
	n.mu.served[l.peer] = slices.DeleteFunc(n.mu.served[l.peer], func(x *link) bool { return x == l })
}

// Dial connects to the peer of that ID.
func (n *network) Dial(id raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	to, ok := n.find(string(id))
	if !ok || n.dial == nil {
		return nil, fmt.Errorf("raftmeta: no peer %q", id)
	}
	ctx, cancel := context.WithTimeout(n.ctx, timeout)
	defer cancel()
	conn, err := n.dial(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("raftmeta: dial %q at %s: %w", to.ID, to.Address, err)
	}
	l, err := n.track(conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	defer n.serving.Done()
	if err := greet(l, n.digest, n.self, to.ID); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Accept waits for a connection that serve has welcomed.
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accepted:
		return c, nil
	case <-n.over:
		return nil, errClosed
	}
}

// cutAll closes all connections and allows no more.
func (n *network) cutAll() {
	n.mu.Lock()
	n.mu.cut = true
	var links []*link
	for l := range n.mu.links {
		links = append(links, l)
	}
	n.mu.Unlock()
	n.cancel()
	for _, l := range links {
		_ = l.Close()
	}
}

// Close is what Raft's transport calls at its end, once.
func (n *network) Close() error {
	n.cutAll()
	close(n.over)
	return nil
}

// Addr is this node's ID.
func (n *network) Addr() net.Addr { return nodeAddr(n.self) }

type nodeAddr string

func (nodeAddr) Network() string  { return "raftmeta" }
func (a nodeAddr) String() string { return string(a) }

// link is a connection that nothing leaves once the node has failed: what Raft says then may rest on something that is
// not on disk.
type link struct {
	net.Conn
	network *network
	peer    string // that it serves; guarded by network.mu
	once    sync.Once
	closed  chan struct{}
}

func (l *link) Write(p []byte) (int, error) {
	if err := l.network.fault.check(); err != nil {
		return 0, err
	}
	return l.Conn.Write(p)
}

func (l *link) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		l.network.forget(l)
		err = l.Conn.Close()
		close(l.closed)
	})
	return err
}
