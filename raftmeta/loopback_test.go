package raftmeta

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process is a node with what a process would have: a directory on disk and a port of its own.
type process struct {
	node     *Node
	machine  *history
	listener net.Listener
	serving  sync.WaitGroup

	mu struct {
		sync.Mutex
		conns []net.Conn
	}
}

func (p *process) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.keep(conn)
		p.serving.Go(func() { p.node.Serve(conn) })
	}
}

func (p *process) keep(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.conns = append(p.mu.conns, conn)
}

// kill does to the others what a killed process does: all connections are closed, and nothing is said.
func (p *process) kill(t testing.TB) {
	_ = p.listener.Close()
	p.mu.Lock()
	conns := p.mu.conns
	p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	require.NoError(t, p.node.Close())
	p.serving.Wait()
}

// loopback starts nodes on this machine's disk and loopback interface.
func loopback(t testing.TB, n int, heartbeat time.Duration) []*process {
	t.Helper()
	var peers []Peer
	ps := make([]*process, n)
	for i := range ps {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ps[i] = &process{listener: l, machine: newHistory()}
		peers = append(peers, Peer{ID: fmt.Sprint(i), Address: l.Addr().String()})
	}
	for i, p := range ps {
		o := Options{Cluster: "test", ID: peers[i].ID, Peers: peers, Dir: filepath.Join(t.TempDir(), "node")}
		o.Heartbeat = heartbeat
		o.Dial = func(ctx context.Context, to Peer) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.Address)
			if err == nil {
				p.keep(conn)
			}
			return conn, err
		}
		var err error
		p.node, err = Open(o, p.machine)
		require.NoError(t, err)
		p.serving.Go(p.accept)
		t.Cleanup(func() { p.kill(t) })
	}
	return ps
}

// leading waits for a process that leads and is up to date.
func leading(t testing.TB, ps []*process) *process {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < patience; pause(time.Millisecond) {
		for _, p := range ps {
			if _, self := p.node.Leader(); self && p.node.Barrier(t.Context()) == nil {
				return p
			}
		}
	}
	t.Fatal("nobody leads")
	return nil
}

// TestLoopback: three nodes on disks and ports. A leader that is killed in a stream of proposals has a successor which has all
// that was acknowledged.
func TestLoopback(t *testing.T) {
	var took []time.Duration
	for range failOvers {
		ps := loopback(t, 3, slow*defaultHeartbeat)
		l := leading(t, ps)
		var mu sync.Mutex
		var acknowledged []string
		enough := make(chan struct{})
		var all sync.WaitGroup
		answers := 0
		for i := range 1000 {
			command := fmt.Sprint(i)
			all.Add(1)
			l.node.Propose([]byte(command), func(err error) {
				defer all.Done()
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					acknowledged = append(acknowledged, command)
				}
				if answers++; answers == 100 {
					close(enough)
				}
			})
		}
		<-enough
		begin := time.Now()
		l.kill(t)
		rest := slices.DeleteFunc(slices.Clone(ps), func(p *process) bool { return p == l })
		next := leading(t, rest)
		took = append(took, time.Since(begin))
		all.Wait()
		have := next.machine.all()
		require.GreaterOrEqual(t, len(have), len(acknowledged))
		require.True(t, slices.Equal(acknowledged, have[:len(acknowledged)]))
		for _, p := range rest {
			require.Equal(t, have, p.machine.await(t, len(have)))
		}
	}
	logMedian(t, "fail-over by a closed connection", took)
}

// patient is a heartbeat for benchmarks, which would stop if the lead was lost.
const patient = 2 * time.Second

// BenchmarkCommit measures one commit after the other, from proposal to answer, on disk and over TCP.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			l := leading(b, loopback(b, n, patient))
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				begin := time.Now()
				if err := propose(l.node, "a command of some twenty bytes"); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs/median")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs/p99")
		})
	}
}

// BenchmarkStream measures proposals that do not wait for one another, a thousand at a time.
func BenchmarkStream(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			l := leading(b, loopback(b, n, patient))
			free := make(chan struct{}, 1000)
			for b.Loop() {
				free <- struct{}{}
				l.node.Propose([]byte("a command of some twenty bytes"), func(err error) {
					if err != nil {
						b.Error(err)
					}
					<-free
				})
			}
			for range cap(free) {
				free <- struct{}{}
			}
		})
	}
}
