package nats

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// cutter is a proxy that cuts each connection after some bytes, drawn for each direction: requests, or their answers, are lost.
type cutter struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	random   *rand.Rand
	cuts     int // still to be made
	running  sync.WaitGroup
}

func newCutter(t testing.TB, to string, seed uint64, cuts int) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cutter{listener: l, to: to, random: rand.New(rand.NewPCG(seed, 1)), cuts: cuts}
	c.running.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			c.running.Go(func() { c.carry(from) })
		}
	})
	t.Cleanup(func() { l.Close(); c.running.Wait() })
	return c
}

// limits draws after how many bytes each direction ends.
func (c *cutter) limits() (up, down int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	up, down = 1<<40, 1<<40
	if c.cuts > 0 {
		c.cuts--
		up, down = 400+c.random.Int64N(12_000), 2000+c.random.Int64N(3000)
	}
	return up, down
}

func (c *cutter) carry(from net.Conn) {
	to, err := net.Dial("tcp", c.to)
	if err != nil {
		from.Close()
		return
	}
	up, down := c.limits()
	end := func() { from.Close(); to.Close() }
	c.running.Go(func() { io.CopyN(to, from, up); end() })
	io.CopyN(from, to, down)
	end()
}

func (c *cutter) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts
}

// Connections break in the middle of messages and of their answers, while one writer follows another.
func TestConnectionsAreCut(t *testing.T) {
	address := embedded(t).Addr().String()
	b := newBench(t, address)
	seeds := uint64(1)
	if *long {
		seeds = 20
	}
	for seed := range seeds {
		c := newCutter(t, address, seed, 15)
		b.options.Connection.Servers = []string{c.listener.Addr().String()}
		random := rand.New(rand.NewPCG(seed, 2))
		var out output
		at, committed, incarnation := 0, 0, determinant.Incarnation(0)
		for at < 400 || c.left() > 0 {
			incarnation++
			s := b.open()
			stored := b.fence(s, incarnation)
			require.EqualValues(t, at, stored.Cursor.Next, "seed %d", seed)
			covers(t, stored.Deltas, max(0, committed-epochRecords), at)
			for range 10 {
				to := min(at+1+random.IntN(9), (at/epochRecords+1)*epochRecords)
				require.NoError(t, s.Write(ctx, incarnation, out.write(at, to)))
				if at = to; at%epochRecords == 0 {
					require.NoError(t, s.Truncate(ctx, determinant.Epoch(at/epochRecords), nil))
					committed = at
				}
			}
			require.NoError(t, s.Close())
		}
		require.Equal(t, out.records(0, at), b.visible(), "seed %d", seed)
		require.NoError(t, b.js.DeleteStream(ctx, "OUT"))
	}
}

// A stream that is full is an outage like others: when there is room, the writer goes on.
func TestAFullStreamIsWaitedFor(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	stream, err := b.js.Stream(ctx, "OUT")
	require.NoError(t, err)
	c := stream.CachedInfo().Config
	c.MaxMsgs = 10
	_, err = b.js.UpdateStream(ctx, c)
	require.NoError(t, err)
	var out output
	written := make(chan error, 1)
	go func() { written <- s.Write(ctx, 1, out.write(0, 30)) }()
	require.Eventually(t, func() bool { return s.(*store).Waiting() != "" }, 10*time.Second, time.Millisecond)
	require.Contains(t, s.(*store).Waiting(), "maximum messages exceeded")
	c.MaxMsgs = -1
	_, err = b.js.UpdateStream(ctx, c)
	require.NoError(t, err)
	require.NoError(t, <-written)
	require.Equal(t, out.records(0, 30), b.visible())
	require.Empty(t, s.(*store).Waiting())
}

// The server forgets what it acknowledged, as after a loss of power without sync: that is said, and not written over.
func TestAServerThatForgets(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	s := b.open()
	b.fence(s, 1)
	require.NoError(t, s.Write(ctx, 1, output{}.write(0, 5)))
	require.NoError(t, b.js.DeleteStream(ctx, "OUT"))
	b.fence(b.open(), 1)
	require.ErrorIs(t, s.Write(ctx, 1, output{}.write(5, 9)), ErrLost)
	require.Empty(t, b.visible())
}

// Both rules are needed: without the conditions a zombie shows more, and output that came before its determinants is noticed.
func TestRulesThatAreBroken(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	b.options.Mutations = mutation.FenceMissingAtSink
	zombie := b.open()
	b.fence(zombie, 1)
	require.NoError(t, zombie.Write(ctx, 1, output{}.write(0, 5)))
	b.options.Mutations = 0
	b.fence(b.open(), 2)
	require.NoError(t, zombie.Write(ctx, 1, output{}.write(5, 9)))
	require.Len(t, b.visible(), 9, "the conditions are what holds a zombie back")
	require.NoError(t, b.js.DeleteStream(ctx, "OUT"))

	b.options.Mutations = mutation.OutputBeforeDeterminants
	sink := NewSink(b.options)
	sink.step = func(do, half func() error) error { // dies in the middle of the write
		if half == nil {
			return do()
		}
		if sink.mu.parts[0].state == nil {
			return do() // the head
		}
		if err := half(); err != nil {
			return err
		}
		return errDied
	}
	s, err := sink.Open(ctx, 0, 1)
	require.NoError(t, err)
	defer s.Close()
	b.fence(s, 1)
	require.ErrorIs(t, s.Write(ctx, 1, output{}.write(0, 6)), errDied)
	require.Eventually(t, func() bool { return len(b.visible()) == 3 }, 10*time.Second, time.Millisecond)
	b.options.Mutations = 0
	_, err = b.open().Fence(ctx, operator.Fence{Incarnation: 2})
	require.ErrorIs(t, err, ErrLost, "output without determinants")
}

var errDied = fmt.Errorf("died")

// Three servers keep each stream, and the one that leads it goes away again and again.
func TestReplicas(t *testing.T) {
	if !*long {
		t.Skip("three servers take their time: make nats")
	}
	servers := startCluster(t, 3)
	b := newBench(t, servers[0].ClientURL())
	for _, s := range servers[1:] {
		b.options.Connection.Servers = append(b.options.Connection.Servers, s.ClientURL())
	}
	b.options.Replicas = 3
	s, reader := b.open(), b.open()
	b.fence(s, 1)
	var out output
	at, incarnation := 0, determinant.Incarnation(1)
	for round := range 3 {
		for range 20 {
			require.NoError(t, s.Write(ctx, incarnation, out.write(at, at+7)))
			at += 7
			stored := b.fence(reader, incarnation) // whichever replica answers
			require.Equal(t, cursorAt(at), stored.Cursor)
			covers(t, stored.Deltas, 0, at)
		}
		stream, err := b.js.Stream(ctx, "OUT")
		require.NoError(t, err)
		leader := stream.CachedInfo().Cluster.Leader
		require.NotEmpty(t, leader)
		conn := b.js.Conn()
		answer, err := conn.Request("$JS.API.STREAM.LEADER.STEPDOWN.OUT", nil, 5*time.Second)
		require.NoError(t, err)
		require.NotContains(t, string(answer.Data), "error")
		if round == 1 {
			incarnation++
			s = b.open()
			require.Equal(t, cursorAt(at), b.fence(s, incarnation).Cursor)
		}
	}
	for range 20 {
		require.NoError(t, s.Write(ctx, incarnation, out.write(at, at+7)))
		at += 7
	}
	require.Equal(t, out.records(0, at), b.visible())
}

func startCluster(t testing.TB, n int) []*server.Server {
	var servers []*server.Server
	var ports []int
	var routes []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, l.Close())
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, "nats://"+l.Addr().String())
	}
	for i := range n {
		o := serverOptions(t.TempDir(), server.RANDOM_PORT)
		o.ServerName = fmt.Sprintf("server%d", i)
		o.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i]}
		o.Routes = server.RoutesFromStr(strings.Join(routes, ","))
		s, err := server.NewServer(o)
		require.NoError(t, err)
		s.Start()
		t.Cleanup(func() { stopEmbedded(s) })
		servers = append(servers, s)
	}
	for _, s := range servers {
		require.True(t, s.ReadyForConnections(20*time.Second))
	}
	js := plain(t, servers[0].ClientURL())
	require.Eventually(t, func() bool {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "ready", Replicas: n})
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	return servers
}

// A write that failed may still be under way when its writer asks what is stored: what it was told must stay true.
func TestAFailedWriteDoesNotComeLater(t *testing.T) {
	for _, again := range []func(b *bench, s operator.CausalStore){
		func(b *bench, s operator.CausalStore) {
			require.Equal(t, cursorAt(5), b.fence(s, 1).Cursor)
		},
		func(b *bench, s operator.CausalStore) {
			require.NoError(t, s.Write(ctx, 1, output{}.write(5, 8)), "without a fence")
		},
	} {
		b := newBench(t, embedded(t).ClientURL())
		sink := NewSink(b.options)
		var late func() error
		armed := false
		sink.step = func(do, half func() error) error {
			if armed && half != nil {
				armed, late = false, half
				return errDied
			}
			return do()
		}
		s, err := sink.Open(ctx, 0, 1)
		require.NoError(t, err)
		defer s.Close()
		b.fence(s, 1)
		require.NoError(t, s.Write(ctx, 1, output{}.write(0, 5)))
		armed = true
		require.ErrorIs(t, s.Write(ctx, 1, output{0}.write(5, 15)), errDied)
		again(b, s)
		before := b.visible()
		_ = late() // its messages are published; that they were flushed it cannot say, since its time is over
		conn, _, err := sink.mu.link.get()
		require.NoError(t, err)
		require.NoError(t, conn.Flush())
		require.NoError(t, s.Write(ctx, 1, output{}.write(len(before), 20)))
		require.Equal(t, output{}.records(0, 20), b.visible())
	}
}
