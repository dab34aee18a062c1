package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/understudy-stream/understudy/determinant"
)

// endpoint is one whose methods are given one by one; what is not given does nothing.
type endpoint struct {
	write   func(peer determinant.WorkerID) *Message
	receive func(m *Message)
	relink  func(peer determinant.WorkerID)
	control func(from determinant.WorkerID, item []byte)
	linked  func(peer determinant.WorkerID, up bool, cause error)
}

func (e *endpoint) Write(peer determinant.WorkerID) *Message {
	if e.write == nil {
		return nil
	}
	return e.write(peer)
}

func (e *endpoint) Receive(m *Message) {
	if e.receive != nil {
		e.receive(m)
	}
}

func (e *endpoint) Relink(peer determinant.WorkerID) {
	if e.relink != nil {
		e.relink(peer)
	}
}

func (e *endpoint) Control(from determinant.WorkerID, item []byte) {
	if e.control != nil {
		e.control(from, item)
	}
}

func (e *endpoint) Linked(peer determinant.WorkerID, up bool, cause error) {
	if e.linked != nil {
		e.linked(peer, up, cause)
	}
}

func within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s does not return", what)
	}
}

func get[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case x := <-c:
		return x
	case <-time.After(patience):
		t.Fatalf("%s does not come", what)
		panic("unreachable")
	}
}

// A network that takes bytes and passes none on is found by both sides, and they meet again behind it.
func TestBlackHole(t *testing.T) {
	p := newPair(t, pairOptions{tiny: true, perStream: 3, keepalive: 100 * time.Millisecond})
	defer p.close(t)
	p.link()
	p.await(t, 3, 0)
	p.proxy.frozen.Store(true)
	for id := determinant.WorkerID(1); id <= 2; id++ {
		eventually(t, "the silence is noticed", func() (noticed bool) {
			p.models[id].with(3-id, func(m *peerModel) { noticed = len(m.causes) > 0 && errors.Is(m.causes[0], ErrSilent) })
			return noticed
		})
	}
	p.send(0, 1)
	p.proxy.frozen.Store(false)
	p.await(t, 3, 1)
}

// While nothing is to be said the keepalive holds a link up.
func TestQuietLinkStaysUp(t *testing.T) {
	p := newPair(t, pairOptions{tiny: true, perStream: 1, keepalive: 20 * time.Millisecond})
	defer p.close(t)
	p.link()
	p.await(t, 1, 0)
	before := p.proxy.passed.Load()
	eventually(t, "pings pass", func() bool { return p.proxy.passed.Load() > before+40*frameHeader })
	p.models[1].with(2, func(m *peerModel) { require.Empty(t, m.causes) })
}

// A receiver that takes its time holds up nobody who speaks to the mesh, nor other peers, nor items.
func TestSlowReceiverBlocksNobody(t *testing.T) {
	stuck, release := make(chan struct{}, 1), make(chan struct{})
	items := make(chan []byte, 10)
	slow := &endpoint{
		receive: func(*Message) { notify(stuck); <-release },
		control: func(_ determinant.WorkerID, item []byte) { items <- item },
	}
	wrote := atomic.Int64{}
	fast := &endpoint{write: func(peer determinant.WorkerID) *Message {
		wrote.Add(1)
		return &Message{From: 2, Frames: []Frame{{Batch: someBatches[3]}}}
	}}
	p := newPair(t, pairOptions{endpoints: [3]Endpoint{1: slow, 2: fast}})
	defer p.close(t)
	defer close(release)
	p.link()
	get(t, "a message", stuck)
	last, same := int64(0), 0
	eventually(t, "the writer is held up", func() bool {
		now := wrote.Load()
		if same++; now != last {
			last, same = now, 0
		}
		return now > 100 && same > 50
	})
	within(t, "a mesh", func() {
		for range 10_000 {
			for id := determinant.WorkerID(1); id <= 2; id++ {
				p.meshes[id].Wake(3 - id)
				p.meshes[id].Backlog(3-id, true)
			}
			p.link()
		}
	})
	require.True(t, p.meshes[2].Send(1, []byte("item"), false))
	require.Equal(t, "item", string(get(t, "an item", items)))
	within(t, "SetPeers", func() {
		p.meshes[1].SetPeers(nil)
		p.meshes[2].SetPeers(nil)
	})
}

// A bulk item that its receiver does not take holds up further bulk, and nothing else; and its sender keeps the rest.
func TestBulkWaitsForItsReceiver(t *testing.T) {
	stuck, release := make(chan struct{}, 1), make(chan struct{})
	smalls := make(chan []byte, 100)
	var bulks atomic.Int64
	receiver := &endpoint{control: func(_ determinant.WorkerID, item []byte) {
		if len(item) > 100 {
			notify(stuck)
			<-release
			bulks.Add(1)
			return
		}
		smalls <- item
	}}
	p := newPair(t, pairOptions{endpoints: [3]Endpoint{1: receiver, 2: &endpoint{}}})
	defer p.close(t)
	p.link()
	image := make([]byte, bulkWindow)
	for range 20 {
		p.meshes[2].Send(1, image, true)
	}
	get(t, "a bulk item", stuck)
	for n := range 100 {
		p.meshes[2].Send(1, []byte{byte(n)}, false)
		require.Equal(t, []byte{byte(n)}, get(t, "a small item", smalls))
	}
	box := &p.meshes[1].peer(2).boxes
	box.Lock()
	received := box.in[bulk].received
	box.Unlock()
	require.LessOrEqual(t, received, uint64(3*bulkWindow+100))
	require.GreaterOrEqual(t, p.meshes[2].Backlog(1, true), int64(18*bulkWindow))
	close(release)
	eventually(t, "all bulk is taken", func() bool { return bulks.Load() == 20 && p.meshes[2].Backlog(1, true) == 0 })
}

// Items longer than any window, in both classes, get through.
func TestLongItems(t *testing.T) {
	got := make(chan []byte, 2)
	p := newPair(t, pairOptions{endpoints: [3]Endpoint{1: &endpoint{}, 2: &endpoint{control: func(_ determinant.WorkerID, item []byte) { got <- item }}}})
	defer p.close(t)
	p.link()
	for _, isBulk := range []bool{false, true} {
		item := bytes.Repeat([]byte("0123456789abcde"), 3*smallWindow/15)
		require.True(t, p.meshes[1].Send(2, item, isBulk))
		require.True(t, bytes.Equal(item, get(t, "a long item", got)))
	}
}

// Each Wake after a nil from Write leads to another Write: none is lost.
func TestWakeIsNotLost(t *testing.T) {
	var mail [3]atomic.Int64 // messages to write
	var came [3]atomic.Int64
	var meshes [3]*Mesh
	of := func(self determinant.WorkerID) *endpoint {
		return &endpoint{
			write: func(determinant.WorkerID) *Message {
				if mail[self].Load() == 0 {
					return nil
				}
				mail[self].Add(-1)
				return &Message{From: self}
			},
			receive: func(m *Message) {
				if came[self].Add(1) < 2000 {
					mail[self].Add(1)
					meshes[self].Wake(m.From)
				}
			},
		}
	}
	p := newPair(t, pairOptions{endpoints: [3]Endpoint{1: of(1), 2: of(2)}, keepalive: time.Hour})
	defer p.close(t)
	meshes = p.meshes
	mail[1].Store(1)
	p.link()
	eventually(t, "the ball is still in play", func() bool { return came[2].Load() >= 2000 })
}

func TestForgottenPeersLeaveNothing(t *testing.T) {
	p := newPair(t, pairOptions{tiny: true, perStream: 3})
	defer p.close(t)
	before := goleak.IgnoreCurrent()
	for range 3 {
		p.link()
		p.send(0, 2)
		eventually(t, "they are linked", func() (up bool) {
			p.models[1].with(2, func(m *peerModel) { up = m.up && m.received == 3 })
			return up
		})
		p.meshes[1].SetPeers(nil)
		p.meshes[2].SetPeers(nil)
		require.NoError(t, goleak.Find(before))
		for id := determinant.WorkerID(1); id <= 2; id++ {
			require.False(t, p.meshes[id].Send(3-id, nil, false))
			require.Zero(t, p.meshes[id].Backlog(3-id, false))
			p.models[id].again()
		}
	}
	p.meshes[1].mu.Lock()
	defer p.meshes[1].mu.Unlock()
	require.Empty(t, p.meshes[1].mu.ending)
}

// notCorrupt is a hook that fails the test when a connection breaks over what the two sides say: they would connect again, and
// nobody would notice.
func notCorrupt(t testing.TB) func(determinant.WorkerID, error) {
	return func(peer determinant.WorkerID, cause error) {
		if errors.Is(cause, ErrCorrupt) {
			t.Errorf("the link with worker %d: %v", peer, cause)
		}
	}
}

// A peer that one side forgot, and then heard of again, is linked anew, with items from then on.
func TestPeerIsForgottenByOneSide(t *testing.T) {
	for forgetful := determinant.WorkerID(1); forgetful <= 2; forgetful++ {
		got := [3]chan string{1: make(chan string, 100), 2: make(chan string, 100)}
		var ends [3]Endpoint
		for id := range 2 {
			ends[id+1] = &endpoint{control: func(_ determinant.WorkerID, item []byte) { got[id+1] <- string(item) }}
		}
		p := newPair(t, pairOptions{endpoints: ends, hooks: MeshHooks{Broken: notCorrupt(t)}})
		p.link()
		for round := range 5 {
			for id := determinant.WorkerID(1); id <= 2; id++ {
				for _, isBulk := range []bool{false, true} {
					item := fmt.Sprint(round, isBulk)
					require.True(t, p.meshes[id].Send(3-id, []byte(item), isBulk))
					require.Equal(t, item, get(t, "an item", got[3-id]))
					eventually(t, "it is acknowledged", func() bool { return p.meshes[id].Backlog(3-id, isBulk) == 0 })
				}
			}
			p.meshes[forgetful].SetPeers(nil)
			p.link()
		}
		p.close(t)
		require.Empty(t, got[1])
		require.Empty(t, got[2])
	}
}

// An item that is being handed on while its sender begins anew counts for nothing in the new numbers.
func TestHeldItemOutlivesItsSession(t *testing.T) {
	stuck, release := make(chan struct{}, 1), make(chan struct{})
	got := make(chan string, 10)
	receiver := &endpoint{control: func(_ determinant.WorkerID, item []byte) {
		notify(stuck)
		<-release
		got <- string(item)
	}}
	p := newPair(t, pairOptions{endpoints: [3]Endpoint{1: receiver, 2: &endpoint{}}, hooks: MeshHooks{Broken: notCorrupt(t)}})
	defer p.close(t)
	p.link()
	p.meshes[2].Send(1, []byte("a long item of the first session"), false)
	get(t, "an item", stuck)
	p.meshes[2].SetPeers(nil)
	p.link()
	p.meshes[2].Send(1, []byte("second"), false)
	box := &p.meshes[1].peer(2).boxes
	eventually(t, "the second item is there", func() bool {
		box.Lock()
		defer box.Unlock()
		return box.session == 2 && box.in[small].received == uint64(len("second")+1)
	})
	close(release)
	require.Equal(t, "a long item of the first session", get(t, "the first item", got))
	require.Equal(t, "second", get(t, "the second item", got))
	eventually(t, "it is acknowledged", func() bool { return p.meshes[2].Backlog(1, false) == 0 })
}

// While a call of Receive is under way, on either side, there is no Relink: neither after a new connection, nor when the peer was
// forgotten and named again.
func TestRelinkWaitsForReceive(t *testing.T) {
	for slow := determinant.WorkerID(1); slow <= 2; slow++ {
		for name, renew := range map[string]func(p *pair){
			"cut":       func(p *pair) { p.proxy.cut() },
			"forgotten": func(p *pair) { p.meshes[slow].SetPeers(nil); p.link() },
		} {
			t.Run(fmt.Sprint(name, slow), func(t *testing.T) {
				stuck, release := make(chan struct{}, 1), make(chan struct{})
				var relinks [3]atomic.Int64
				var receiving atomic.Bool
				var wrote atomic.Bool
				ends := [3]Endpoint{}
				ends[slow] = &endpoint{
					receive: func(*Message) { receiving.Store(true); notify(stuck); <-release; receiving.Store(false) },
					relink: func(determinant.WorkerID) {
						if receiving.Load() {
							t.Error("Relink during Receive")
						}
						relinks[slow].Add(1)
					},
				}
				ends[3-slow] = &endpoint{
					write: func(determinant.WorkerID) *Message {
						if wrote.Swap(true) {
							return nil
						}
						return &Message{From: 3 - slow}
					},
					relink: func(determinant.WorkerID) { relinks[3-slow].Add(1) },
				}
				p := newPair(t, pairOptions{endpoints: ends})
				defer p.close(t)
				p.link()
				get(t, "a message", stuck)
				renew(p)
				if slow == 1 { // the other side has done its part, and this one has seen the new connection
					eventually(t, "it is dialled again", func() bool { return relinks[2].Load() > 1 })
				}
				require.Never(t, func() bool { return relinks[slow].Load() > 1 }, 50*time.Millisecond, time.Millisecond)
				close(release)
				eventually(t, "they are linked again", func() bool { return relinks[1].Load() > 1 && relinks[2].Load() > 1 })
			})
		}
	}
}

func TestMeshRefuses(t *testing.T) {
	m := NewMesh(MeshOptions{Self: 5, Cluster: "c", Endpoint: &endpoint{}})
	defer func() { require.NoError(t, m.Close()) }()
	m.SetPeers([]Peer{{ID: 4}, {ID: 5}, {ID: 6}, {ID: 6}})
	mine := invitation{kind: items, attempt: 2, standing: standing{session: 2}}
	right := Hello{Purpose: PurposeLink, Cluster: "c", From: 6, To: 5, Instance: "i", Body: mine.encode()}
	reply, _, err := m.Accept(right)
	require.NoError(t, err)
	require.EqualValues(t, 5, reply.From)
	require.EqualValues(t, 6, reply.To)
	older := mine
	older.standing.session = 1
	for reason, spoil := range map[string]func(h *Hello){
		"is no link":                   func(h *Hello) { h.Purpose = "raft" },
		`this is cluster "c", and not`: func(h *Hello) { h.Cluster = "d" },
		"this is worker 5, and not 7":  func(h *Hello) { h.To = 7 },
		"not a peer":                   func(h *Hello) { h.From = 7 },
		"is to be dialled by worker 5": func(h *Hello) { h.From = 4 },
		`is process "i", and not "j"`:  func(h *Hello) { h.Instance = "j" },
		"session 1 is older than 2":    func(h *Hello) { h.Body = older.encode() },
		"corrupt":                      func(h *Hello) { h.Body = h.Body[1:] },
	} {
		h := right
		spoil(&h)
		_, _, err := m.Accept(h)
		require.ErrorContains(t, err, reason)
	}
}

// An attempt that was overtaken by a later one does not replace it.
func TestOlderConnectionsAreDropped(t *testing.T) {
	var l line
	a, b := loopbackPair(t)
	inUse, over := make(chan struct{}), make(chan error, 1)
	go func() { over <- l.use(1, 2, newConn(a), func(s *strand) { close(inUse); _, _, _ = s.conn.Read() }) }()
	<-inUse
	never := func(*strand) { t.Error("it was used") }
	require.ErrorContains(t, l.use(1, 1, newConn(b), never), "older")
	require.ErrorContains(t, l.newer(1, 2), "older")
	require.NoError(t, l.newer(1, 3))
	require.NoError(t, l.newer(2, 1))
	l.close(ErrClosed)
	require.ErrorIs(t, get(t, "the end", over), ErrClosed)
	require.ErrorIs(t, l.use(3, 1, newConn(b), never), ErrClosed)
}

// A worker that gives its messages another's name, or one that does not fit on the wire, loses the link and says why.
func TestMessagesThatBreakTheLink(t *testing.T) {
	wrong := *batchOf(10)
	wrong.Count = 5
	for name, test := range map[string]struct {
		message *Message
		at      determinant.WorkerID // who learns the cause
	}{
		"another's":       {&Message{From: 3}, 2},
		"unknown channel": {&Message{From: 1, Credits: []Credit{{Channel: 7}}}, 2},
		"inconsistent":    {&Message{From: 1, Frames: []Frame{{Batch: &wrong}}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			causes := [3]chan error{1: make(chan error, 1000), 2: make(chan error, 1000)}
			linked := func(id int) func(determinant.WorkerID, bool, error) {
				return func(_ determinant.WorkerID, up bool, cause error) {
					if !up {
						causes[id] <- cause
					}
				}
			}
			p := newPair(t, pairOptions{endpoints: [3]Endpoint{
				1: &endpoint{write: func(determinant.WorkerID) *Message { return test.message }, linked: linked(1)},
				2: &endpoint{linked: linked(2), receive: func(*Message) { t.Error("it was received") }},
			}})
			defer p.close(t)
			p.link()
			require.ErrorIs(t, get(t, "a cause", causes[test.at]), ErrCorrupt)
		})
	}
}

// Whoever waits for a peer that is not there is told each time that it tried.
func TestDialFailuresAreTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	causes := make(chan error, 1000)
	m := NewMesh(MeshOptions{Self: 2, Security: secretOnly(), MaxBackoff: time.Millisecond, Endpoint: &endpoint{
		linked: func(_ determinant.WorkerID, up bool, cause error) { causes <- cause },
	}})
	m.SetPeers([]Peer{{ID: 1, Addr: l.Addr().String()}})
	var op *net.OpError
	require.ErrorAs(t, get(t, "a cause", causes), &op)
	require.ErrorAs(t, get(t, "another", causes), &op)
	require.NoError(t, m.Close())
}

// The endpoint may call the mesh from within.
func TestEndpointCallsBack(t *testing.T) {
	var p *pair
	var meshes [3]atomic.Pointer[Mesh]
	all := func(self, peer determinant.WorkerID) {
		if m := meshes[self].Load(); m != nil {
			m.Wake(peer)
			m.Backlog(peer, false)
			m.Send(peer, []byte("x"), false)
		}
	}
	done := make(chan struct{}, 1)
	of := func(self determinant.WorkerID) *endpoint {
		n := 0
		return &endpoint{
			relink:  func(peer determinant.WorkerID) { all(self, peer) },
			linked:  func(peer determinant.WorkerID, _ bool, _ error) { all(self, peer) },
			receive: func(m *Message) { all(self, m.From) },
			write:   func(peer determinant.WorkerID) *Message { return nil },
			control: func(from determinant.WorkerID, _ []byte) {
				if n++; n == 10 {
					meshes[self].Load().Cut(from)
				}
				if n < 100 {
					all(self, from)
				} else if n == 100 {
					p.link() // SetPeers
					notify(done)
				}
			},
		}
	}
	p = newPair(t, pairOptions{endpoints: [3]Endpoint{1: of(1), 2: of(2)}})
	defer p.close(t)
	meshes[1].Store(p.meshes[1])
	meshes[2].Store(p.meshes[2])
	p.link()
	get(t, "the hundredth item", done)
}

func TestLoopback(t *testing.T) {
	sent := []*Message{{From: 1, Generation: 1}, {From: 1, Generation: 2}, {From: 1, Generation: 3}}
	var next atomic.Int64
	got, items := make(chan *Message, 10), make(chan string, 10)
	m := NewMesh(MeshOptions{Self: 1, Endpoint: &endpoint{
		write: func(peer determinant.WorkerID) *Message {
			if n := next.Add(1) - 1; n < int64(len(sent)) {
				return sent[n]
			}
			return nil
		},
		receive: func(m *Message) { got <- m },
		control: func(_ determinant.WorkerID, item []byte) { items <- string(item) },
	}})
	m.Wake(1)
	for _, want := range sent {
		require.Same(t, want, get(t, "a message", got))
	}
	for _, item := range []string{"one", "two", "three"} {
		require.True(t, m.Send(1, []byte(item), false))
	}
	for _, want := range []string{"one", "two", "three"} {
		require.Equal(t, want, get(t, "an item", items))
	}
	eventually(t, "nothing is left", func() bool { return m.Backlog(1, false) == 0 })
	require.NoError(t, m.Close())
	m.Wake(1)
	m.SetPeers([]Peer{{ID: 2}})
	require.Nil(t, m.peer(2))
	require.NoError(t, m.Close(), "closing twice does nothing")
}

// Worker 2 of another start of the process is not the worker 2 that was there.
func TestImposterIsRefused(t *testing.T) {
	p := newPair(t, pairOptions{tiny: true, perStream: 1})
	defer p.close(t)
	p.link()
	p.await(t, 1, 0)
	imposter := NewMesh(MeshOptions{Self: 2, Cluster: "test", Instance: "other", Security: secretOnly()})
	hello := imposter.hello(1, invitation{attempt: 99, standing: standing{session: 99}})
	s := secretOnly()
	_, _, err := s.Dial(context.Background(), p.server.Addr(), hello)
	require.ErrorIs(t, err, ErrRefused)
	require.NoError(t, imposter.Close())
}

// What is said to be sent is what is said to come, and each connection that is made breaks once.
func TestHooks(t *testing.T) {
	var sent, received, connected, failed, broken, unknown atomic.Int64
	p := newPair(t, pairOptions{tiny: true, perStream: 100, hooks: MeshHooks{
		Sent:     func(_ determinant.WorkerID, frames, bytes int) { sent.Add(int64(frames<<32 + bytes)) },
		Received: func(_ determinant.WorkerID, frames, bytes int) { received.Add(int64(frames<<32 + bytes)) },
		Connect: func(_ determinant.WorkerID, err error) {
			if err == nil {
				connected.Add(1)
			} else {
				failed.Add(1)
			}
		},
		Broken:  func(determinant.WorkerID, error) { broken.Add(1) },
		Unknown: func(peer determinant.WorkerID) { unknown.Store(int64(peer)) },
	}})
	p.meshes[2].SetPeers([]Peer{{ID: 1, Addr: p.proxy.addr()}})
	eventually(t, "a refusal", func() bool { return failed.Load() > 0 })
	require.EqualValues(t, 2, unknown.Load())
	p.link()
	p.send(0, 1)
	p.await(t, 100, 1)
	eventually(t, "all is counted", func() bool { return sent.Load() == received.Load() })
	require.EqualValues(t, 2*100*2, sent.Load()>>32, "a head and a batch each")
	require.EqualValues(t, 2*lines, connected.Load())
	p.close(t)
	require.EqualValues(t, 2*lines, broken.Load())
}
