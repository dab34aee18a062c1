package transport

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

// workerModel is an endpoint that knows what a worker may rely on, and notes every breach. A message carries the number of its
// writer's stream and its place in it.
type workerModel struct {
	t    testing.TB
	self determinant.WorkerID
	tiny bool // messages and items are

	mu    sync.Mutex
	peers map[determinant.WorkerID]*peerModel
}

type peerModel struct {
	writing, receiving bool
	stream             int // calls of Relink
	wrote              int // messages of this stream
	limit              int // messages per stream
	received           int // messages of this stream
	theirs             int // number that the peer gives to this stream, known from its first message
	total              int // messages over all
	up                 bool
	causes             []error
	items              [classes]int // received
}

func newWorkerModel(t testing.TB, self determinant.WorkerID) *workerModel {
	return &workerModel{t: t, self: self, peers: map[determinant.WorkerID]*peerModel{}}
}

// with looks at what is known of a peer.
func (w *workerModel) with(peer determinant.WorkerID, f func(p *peerModel)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.peers[peer]
	if p == nil {
		p = &peerModel{}
		w.peers[peer] = p
	}
	f(p)
}

// again forgets what was, for a peer that begins anew.
func (w *workerModel) again() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, p := range w.peers {
		w.peers[id] = &peerModel{limit: p.limit}
	}
}

func (w *workerModel) breach(format string, args ...any) {
	w.t.Errorf("worker %d: %s", w.self, fmt.Sprintf(format, args...))
}

var someBatches = []*inflightlog.Batch{batchOf(1), batchOf(detachBelow - 1), batchOf(detachBelow), batchOf(20_000)}

// messageOf is message n of a stream, of one of several shapes.
func messageOf(from determinant.WorkerID, stream, n int, tiny bool) *Message {
	m := &Message{From: from, Generation: determinant.Generation(stream), Delta: binary.AppendUvarint(nil, uint64(n))}
	if tiny {
		m.Frames = []Frame{{Batch: batchOf(1 + n)}}
		return m
	}
	r := rand.New(rand.NewPCG(uint64(stream), uint64(n)))
	for range r.IntN(4) {
		m.Frames = append(m.Frames, Frame{Batch: someBatches[r.IntN(len(someBatches))]})
	}
	if r.IntN(50) == 0 {
		m.Delta = append(m.Delta, make([]byte, 3*deltaPiece)...)
	}
	return m
}

func (w *workerModel) Write(peer determinant.WorkerID) (m *Message) {
	w.with(peer, func(p *peerModel) {
		if p.writing {
			w.breach("two calls of Write at once")
		}
		if p.stream == 0 {
			w.breach("Write before Relink")
		}
		p.writing = true
		if p.wrote < p.limit {
			m = messageOf(w.self, p.stream, p.wrote, w.tiny)
			p.wrote++
		}
	})
	w.with(peer, func(p *peerModel) { p.writing = false })
	return m
}

func (w *workerModel) Receive(m *Message) {
	w.with(m.From, func(p *peerModel) {
		if p.receiving || p.stream == 0 {
			w.breach("Receive while another runs, or before Relink")
		}
		p.receiving = true
		stream := int(m.Generation)
		if p.received == 0 {
			if stream <= p.theirs {
				w.breach("message of stream %d after one of %d and a Relink", stream, p.theirs)
			}
			p.theirs = stream
		}
		n, _ := binary.Uvarint(m.Delta)
		if stream != p.theirs || int(n) != p.received {
			w.breach("message %d of stream %d, expected %d of %d", n, stream, p.received, p.theirs)
		}
		want := messageOf(m.From, stream, int(n), w.tiny)
		if !bytes.Equal(want.Delta, m.Delta) || len(want.Frames) != len(m.Frames) {
			w.breach("message %d of stream %d is not as it was written", n, stream)
		}
		p.received++
		p.total++
	})
	for i := range m.Frames {
		if err := m.Frames[i].Batch.Check(0, inflightlog.Origin); err != nil {
			w.breach("%v", err)
		}
	}
	w.with(m.From, func(p *peerModel) { p.receiving = false })
}

func (w *workerModel) Relink(peer determinant.WorkerID) {
	w.with(peer, func(p *peerModel) {
		if p.writing || p.receiving || p.up {
			w.breach("Relink while Write %v, Receive %v, up %v", p.writing, p.receiving, p.up)
		}
		p.stream++
		p.wrote, p.received = 0, 0
	})
}

func (w *workerModel) Linked(peer determinant.WorkerID, up bool, cause error) {
	w.with(peer, func(p *peerModel) {
		if up != (cause == nil) || up && p.up || p.writing || p.receiving {
			w.breach("Linked(%v, %v) while %v", up, cause, p.up)
		}
		p.up = up
		if cause != nil {
			p.causes = append(p.causes, cause)
		}
	})
}

// itemOf is item n of a class: some are longer than a window.
func itemOf(class, n int, tiny bool) []byte {
	if tiny {
		return []byte{byte(class), byte(n)}
	}
	r := rand.New(rand.NewPCG(uint64(class), uint64(n)))
	size := r.IntN(300)
	if class == bulk {
		size = r.IntN(200_000)
		if n%10 == 9 {
			size = 2 * bulkWindow
		}
	}
	item := binary.AppendUvarint([]byte{byte(class)}, uint64(n))
	return append(item, bytes.Repeat([]byte{byte(n)}, size)...)
}

func (w *workerModel) Control(from determinant.WorkerID, item []byte) {
	w.with(from, func(p *peerModel) {
		class := int(item[0])
		if want := itemOf(class, p.items[class], w.tiny); !bytes.Equal(want, item) {
			n, _ := binary.Uvarint(item[1:])
			w.breach("item %d of class %d, expected %d", n, class, p.items[class])
		}
		p.items[class]++
	})
}

// received tells how much came from a peer.
func (w *workerModel) totals(peer determinant.WorkerID) (messages int, items [classes]int) {
	w.with(peer, func(p *peerModel) { messages, items = p.total, p.items })
	return messages, items
}

// pair is two workers, 1 and 2, of which 2 dials 1 through a proxy.
type pair struct {
	models [3]*workerModel
	meshes [3]*Mesh
	server *Server
	proxy  *proxy
}

type pairOptions struct {
	security  Security
	keepalive time.Duration
	perStream int // messages that each side writes per stream
	tiny      bool
	hooks     MeshHooks
	endpoints [3]Endpoint
}

func newPair(t testing.TB, o pairOptions) *pair {
	p := &pair{}
	if o.security.Secret == nil && o.security.TLS == nil {
		o.security = secretOnly()
	}
	for id := determinant.WorkerID(1); id <= 2; id++ {
		p.models[id] = newWorkerModel(t, id)
		p.models[id].tiny = o.tiny
		p.models[id].with(3-id, func(m *peerModel) { m.limit = o.perStream })
		if o.endpoints[id] == nil {
			o.endpoints[id] = p.models[id]
		}
		p.meshes[id] = NewMesh(MeshOptions{
			Self: id, Cluster: "test", Instance: fmt.Sprint("process ", id), Security: o.security, Endpoint: o.endpoints[id],
			Limits: Limits{Tasks: 1, Channels: 1}, Keepalive: o.keepalive, MaxBackoff: 20 * time.Millisecond,
			Hooks: o.hooks,
		})
	}
	var err error
	p.server, err = Listen("127.0.0.1:0", ServerOptions{Security: o.security, Handle: p.meshes[1].Accept})
	require.NoError(t, err)
	p.proxy = newProxy(t, p.server.Addr())
	return p
}

func (p *pair) close(t testing.TB) {
	require.NoError(t, p.meshes[2].Close())
	require.NoError(t, p.meshes[1].Close())
	require.NoError(t, p.server.Close())
	p.proxy.close()
}

// link lets the two know each other.
func (p *pair) link() {
	p.meshes[1].SetPeers([]Peer{{ID: 2}})
	p.meshes[2].SetPeers([]Peer{{ID: 1, Addr: p.proxy.addr()}})
}

// send gives items [from, to) of both classes to both meshes.
func (p *pair) send(from, to int) {
	for n := from; n < to; n++ {
		for id := determinant.WorkerID(1); id <= 2; id++ {
			p.meshes[id].Send(3-id, itemOf(small, n, p.models[id].tiny), false)
			p.meshes[id].Send(3-id, itemOf(bulk, n, p.models[id].tiny), true)
		}
	}
}

// await waits until each side has all messages of one stream, and the items.
func (p *pair) await(t testing.TB, messages, items int) {
	t.Helper()
	eventually(t, "all is there", func() bool {
		for id := determinant.WorkerID(1); id <= 2; id++ {
			done := false
			p.models[id].with(3-id, func(m *peerModel) { done = m.up && m.received == messages && m.items == [classes]int{items, items} })
			if !done {
				return false
			}
		}
		return true
	})
}

func TestLink(t *testing.T) {
	ca := newAuthority(t)
	for name, s := range map[string]Security{"secret": secretOnly(), "TLS": ca.security(t)} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, pairOptions{security: s, perStream: 200})
			defer p.close(t)
			p.link()
			p.send(0, 30)
			p.await(t, 200, 30)
			for id := determinant.WorkerID(1); id <= 2; id++ {
				p.models[id].with(3-id, func(m *peerModel) {
					require.Equal(t, 1, m.stream)
					require.Empty(t, m.causes)
				})
				eventually(t, "all is acknowledged", func() bool {
					return p.meshes[id].Backlog(3-id, false) == 0 && p.meshes[id].Backlog(3-id, true) == 0
				})
			}
		})
	}
}

// Connections break at random moments, from either end and in between, and no stream ever shows a message of another, none is
// missing within one, and no item is lost or comes twice.
func TestLinksUnderRandomCuts(t *testing.T) {
	p := newPair(t, pairOptions{perStream: 1 << 30, hooks: MeshHooks{Broken: notCorrupt(t)}})
	defer p.close(t)
	chance := rand.New(rand.NewPCG(1, 2))
	p.proxy.cutAfter(func(int) (up, down int) {
		limits := []int{-1, 300, 5_000, 500_000}
		return limits[chance.IntN(len(limits))], limits[chance.IntN(len(limits))]
	})
	r := rand.New(rand.NewPCG(3, 4))
	p.link()
	const items, rounds = 40, 40
	for round := range rounds {
		p.send(round*items/rounds, (round+1)*items/rounds)
		before, _ := p.models[1].totals(2)
		switch r.IntN(4) {
		case 0:
			p.meshes[1].Cut(2)
		case 1:
			p.meshes[2].Cut(1)
		case 2:
			p.proxy.cut()
		case 3:
			eventually(t, "messages come", func() bool {
				now, _ := p.models[1].totals(2)
				return now > before+5
			})
		}
	}
	p.proxy.cutAfter(nil)
	p.proxy.cut()
	eventually(t, "all items come", func() bool {
		_, one := p.models[1].totals(2)
		_, two := p.models[2].totals(1)
		return one == [classes]int{items, items} && two == one
	})
	for id := determinant.WorkerID(1); id <= 2; id++ {
		p.models[id].with(3-id, func(m *peerModel) { require.Greater(t, m.stream, 5) })
	}
}

// The first connections of both kinds break after each number of bytes, in each direction.
func TestLinkCutAtEveryByte(t *testing.T) {
	whole := newPair(t, pairOptions{tiny: true, perStream: 3})
	whole.link()
	whole.send(0, 2)
	whole.await(t, 3, 2)
	whole.close(t)
	step := 1
	if testing.Short() {
		step = 17
	}
	for direction := range 2 {
		bytes := int(whole.proxy.most[direction].Load())
		require.Greater(t, bytes, 200)
		for n := 0; n <= bytes+50; n += step {
			cutAt(t, direction, n)
		}
	}
}

func cutAt(t *testing.T, direction, n int) {
	p := newPair(t, pairOptions{tiny: true, perStream: 3, hooks: MeshHooks{Broken: notCorrupt(t)}})
	defer p.close(t)
	p.proxy.cutAfter(func(i int) (up, down int) {
		limits := [2]int{-1, -1}
		if i < lines {
			limits[direction] = n
		}
		return limits[0], limits[1]
	})
	p.link()
	p.send(0, 2)
	p.await(t, 3, 2)
	if t.Failed() {
		t.Fatalf("cut after %d bytes in direction %d", n, direction)
	}
}
