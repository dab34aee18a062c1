package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// network is the connections of one process. It can be cut, and each request that changes something goes through do.
type network struct {
	do func(api kmsg.Key, step func() error) error // nil: nothing happens to it
	mu struct {
		sync.Mutex
		cut     bool
		wires   map[*wire]bool
		running sync.WaitGroup
	}
}

func newNetwork(t testing.TB) *network {
	n := &network{}
	n.mu.wires = make(map[*wire]bool)
	t.Cleanup(func() { n.down(); n.mu.running.Wait() })
	return n
}

var errCut = errors.New("the network is cut")

func (n *network) dial(ctx context.Context, kind, host string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, kind, host)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.cut {
		c.Close()
		return nil, errCut
	}
	w := &wire{Conn: c, network: n}
	w.arrived = sync.NewCond(&w.mu)
	n.mu.wires[w] = true
	n.mu.running.Go(w.receive)
	return w, nil
}

// down cuts all connections and lets none be made; up ends that.
func (n *network) down() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.cut = true
	for w := range n.mu.wires {
		w.Conn.Close()
	}
}

func (n *network) up() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.cut = false
}

// wire is a connection. Its client writes each request at once; answers come in the order of requests.
type wire struct {
	net.Conn
	network *network

	mu       sync.Mutex
	arrived  *sync.Cond
	sent     int          // requests
	answered int          // of them
	answers  bytes.Buffer // that the client has not read yet
	err      error
}

// receive takes the answers off the wire.
func (w *wire) receive() {
	for {
		var size [4]byte
		_, err := io.ReadFull(w.Conn, size[:])
		answer := make([]byte, 4+binary.BigEndian.Uint32(size[:]))
		copy(answer, size[:])
		if err == nil {
			_, err = io.ReadFull(w.Conn, answer[4:])
		}
		w.mu.Lock()
		if err != nil {
			w.err = err
		} else {
			w.answered++
			w.answers.Write(answer)
		}
		w.arrived.Broadcast()
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.answers.Len() == 0 {
		if w.err != nil {
			return 0, w.err
		}
		w.arrived.Wait()
	}
	return w.answers.Read(p)
}

// changes are the requests that change something outside.
var changes = map[kmsg.Key]bool{
	kmsg.Produce: true, kmsg.CreateTopics: true, kmsg.DeleteRecords: true, kmsg.InitProducerID: true, kmsg.AddPartitionsToTxn: true,
	kmsg.EndTxn: true,
}

func (w *wire) Write(p []byte) (int, error) {
	api := kmsg.Key(binary.BigEndian.Uint16(p[4:]))
	if w.network.do == nil || !changes[api] {
		return w.send(p)
	}
	err := w.network.do(api, func() error { return w.finish(p) })
	if err != nil {
		w.mu.Lock()
		w.err = err
		w.answers.Reset()
		w.arrived.Broadcast()
		w.mu.Unlock()
		w.Conn.Close()
		return 0, err
	}
	return len(p), nil
}

func (w *wire) send(p []byte) (int, error) {
	w.mu.Lock()
	w.sent++
	w.mu.Unlock()
	return w.Conn.Write(p)
}

// finish sends a request and waits until the brokers have answered it.
func (w *wire) finish(p []byte) error {
	if _, err := w.send(p); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for upTo := w.sent; w.answered < upTo; {
		if w.err != nil {
			return w.err
		}
		w.arrived.Wait()
	}
	return nil
}

func (w *wire) Close() error {
	w.network.mu.Lock()
	delete(w.network.mu.wires, w)
	w.network.mu.Unlock()
	return w.Conn.Close()
}
