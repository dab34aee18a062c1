package transport

import (
	"fmt"
	"hash/crc32"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

// batchOf makes a batch of one element of n bytes.
func batchOf(n int) *inflightlog.Batch {
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	return &inflightlog.Batch{
		Count: 1, Epoch: 1, Payload: payload, Start: inflightlog.Origin,
		End: determinant.Cursor{Next: 1, Epoch: 1, Bytes: uint64(n), CRC: crc32.Checksum(payload, castagnoli)},
	}
}

// BenchmarkStream sends batches one way over loopback: by the system call alone, with memory that is used again and with memory that is kept, by a Conn, and by a whole link, which also
// decodes and checks them. Bytes are those of payloads; allocations are those of both ends.
func BenchmarkStream(b *testing.B) {
	ballast = make([]byte, 128<<20)
	defer func() { ballast = nil }()
	for _, size := range []int{1 << 10, 32 << 10} {
		b.Run(fmt.Sprintf("batch=%d/writev", size), func(b *testing.B) { benchWritev(b, size, false) })
		b.Run(fmt.Sprintf("batch=%d/writev-kept", size), func(b *testing.B) { benchWritev(b, size, true) })
		b.Run(fmt.Sprintf("batch=%d/conn", size), func(b *testing.B) { benchConn(b, size) })
		b.Run(fmt.Sprintf("batch=%d/link", size), func(b *testing.B) { benchLink(b, size, secretOnly()) })
		b.Run(fmt.Sprintf("batch=%d/link-tls", size), func(b *testing.B) { benchLink(b, size, newAuthority(b).security(b)) })
	}
}

// measure starts the clock. The time of processors, of both ends, tells more than that on the wall where others run too.
func measure(b *testing.B, size int) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	before := processorTime(b)
	b.Cleanup(func() { b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op") })
	b.ResetTimer()
}

func processorTime(b *testing.B) int64 {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// ballast stands for the state that a worker has in memory. Without it the collector would run every few megabytes.
var ballast []byte

const benchFrames = 32 // per write

func loopbackPair(b testing.TB) (client, server net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(b, err)
	server, err = l.Accept()
	require.NoError(b, err)
	b.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// benchWritev reads into the same memory again and again, or, kept, into memory that may be given away.
func benchWritev(b *testing.B, size int, kept bool) {
	client, server := loopbackPair(b)
	payload := batchOf(size).Payload
	measure(b, size)
	go func() {
		whole := make(net.Buffers, benchFrames)
		for n := 0; n < b.N; n += benchFrames {
			bufs := whole[:min(benchFrames, b.N-n)]
			for i := range bufs {
				bufs[i] = payload
			}
			if _, err := bufs.WriteTo(client); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	buf := make([]byte, maxChunk)
	for left, free := b.N*size, buf; left > 0; {
		n, err := server.Read(free)
		if err != nil {
			b.Fatal(err)
		}
		left -= n
		if free = free[n:]; len(free) < size {
			if kept {
				buf = make([]byte, maxChunk)
			}
			free = buf
		}
	}
}

func benchConn(b *testing.B, size int) {
	client, server := loopbackPair(b)
	w, r := newConn(client), newConn(server)
	payload := batchOf(size).Payload
	measure(b, size)
	go func() {
		for n := range b.N {
			err := w.Queue(1, payload)
			if err == nil && (n%benchFrames == benchFrames-1 || n == b.N-1) {
				err = w.Flush()
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for range b.N {
		if _, _, err := r.ReadKept(); err != nil {
			b.Fatal(err)
		}
	}
}

// torrent is an endpoint that sends the same batch over and over, or counts what comes and keeps it for a while, as a
// consumer does.
type torrent struct {
	batch *inflightlog.Batch
	left  atomic.Int64
	held  [64]*inflightlog.Batch
	got   int
	done  chan struct{}
	up    chan struct{}
}

func newTorrent(batch *inflightlog.Batch) *torrent {
	return &torrent{batch: batch, done: make(chan struct{}, 1), up: make(chan struct{}, 1)}
}

func (t *torrent) Write(determinant.WorkerID) *Message {
	n := min(t.left.Load(), benchFrames)
	if n == 0 || t.batch == nil {
		return nil
	}
	t.left.Add(-n)
	m := &Message{From: 1, Frames: make([]Frame, n), Delta: t.batch.Payload[:64]}
	for i := range m.Frames {
		m.Frames[i] = Frame{Batch: t.batch}
	}
	return m
}

func (t *torrent) Receive(m *Message) {
	for i := range m.Frames {
		b := m.Frames[i].Batch
		if err := b.Check(0, inflightlog.Origin); err != nil {
			panic(err)
		}
		t.held[t.got%len(t.held)] = b
		t.got++
	}
	if t.left.Add(-int64(len(m.Frames))) == 0 {
		notify(t.done)
	}
}

func (t *torrent) Relink(determinant.WorkerID)                     {}
func (t *torrent) Control(determinant.WorkerID, []byte)            {}
func (t *torrent) Linked(_ determinant.WorkerID, up bool, _ error) { notify(t.up) }

func benchLink(b *testing.B, size int, security Security) {
	from, to := newTorrent(batchOf(size)), newTorrent(nil)
	limits := Limits{Tasks: 1, Channels: 1}
	receiver := NewMesh(MeshOptions{Self: 2, Security: security, Endpoint: to, Limits: limits})
	sender := NewMesh(MeshOptions{Self: 1, Security: security, Endpoint: from, Limits: limits})
	server, err := Listen("127.0.0.1:0", ServerOptions{Security: security, Handle: sender.Accept})
	require.NoError(b, err)
	defer func() {
		require.NoError(b, sender.Close())
		require.NoError(b, receiver.Close())
		require.NoError(b, server.Close())
	}()
	sender.SetPeers([]Peer{{ID: 2}})
	receiver.SetPeers([]Peer{{ID: 1, Addr: server.Addr()}})
	<-from.up
	<-to.up
	measure(b, size)
	to.left.Store(int64(b.N))
	from.left.Store(int64(b.N))
	sender.Wake(2)
	<-to.done
}

// BenchmarkItem sends a small item there and back: alone, and while bulk items fill the connection.
func BenchmarkItem(b *testing.B) {
	b.Run("alone", func(b *testing.B) { benchItem(b, false) })
	b.Run("with-bulk", func(b *testing.B) { benchItem(b, true) })
}

func benchItem(b *testing.B, withBulk bool) {
	back := make(chan struct{}, 1)
	var p *pair
	image := make([]byte, 8<<20)
	ends := [3]Endpoint{2: &endpoint{control: func(determinant.WorkerID, []byte) { notify(back) }}}
	ends[1] = &endpoint{control: func(_ determinant.WorkerID, item []byte) {
		if len(item) < len(image) {
			p.meshes[1].Send(2, item, false)
		} else {
			p.meshes[2].Send(1, image, true)
		}
	}}
	p = newPair(b, pairOptions{endpoints: ends})
	defer p.close(b)
	p.meshes[1].SetPeers([]Peer{{ID: 2}})
	p.meshes[2].SetPeers([]Peer{{ID: 1, Addr: p.server.Addr()}})
	if withBulk {
		p.meshes[2].Send(1, image, true)
		p.meshes[2].Send(1, image, true)
	}
	measure(b, 0)
	for range b.N {
		p.meshes[2].Send(1, []byte("item"), false)
		<-back
	}
}
