package raftmeta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// childEnv marks a process that a test has started to run itself: what it leaves behind goes with the process.
const childEnv = "RAFTMETA_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// inChild runs the test in a process of its own, and says whether this is it.
func inChild(t *testing.T) bool {
	if os.Getenv(childEnv) != "" {
		return true
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), childEnv+"=1")
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
	return false
}

// history is a machine that remembers every command.
type history struct {
	mu struct {
		sync.Mutex
		commands []string
		restores int
		changed  chan struct{} // closed at the next change
	}
}

func newHistory() *history {
	h := &history{}
	h.mu.changed = make(chan struct{})
	return h
}

func (h *history) Apply(index uint64, command []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if want := uint64(len(h.mu.commands)) + 1; index != want {
		panic(fmt.Sprintf("command %d applied in the place of %d", index, want))
	}
	h.mu.commands = append(h.mu.commands, string(command))
	h.wake()
}

func (h *history) wake() {
	close(h.mu.changed)
	h.mu.changed = make(chan struct{})
}

func (h *history) Snapshot() ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b []byte
	for _, c := range h.mu.commands {
		b = binary.AppendUvarint(b, uint64(len(c)))
		b = append(b, c...)
	}
	return b, nil
}

func (h *history) Restore(state []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.commands = nil
	h.mu.restores++
	r := reader{b: state}
	for len(r.b) > 0 {
		h.mu.commands = append(h.mu.commands, string(r.bytes()))
	}
	if r.bad {
		return errors.New("bad state")
	}
	h.wake()
	return nil
}

func (h *history) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.commands[:len(h.mu.commands):len(h.mu.commands)]
}

// await waits until the machine has n commands.
func (h *history) await(t testing.TB, n int) []string {
	t.Helper()
	timeout := time.After(patience)
	for {
		h.mu.Lock()
		have, changed := h.mu.commands, h.mu.changed
		h.mu.Unlock()
		if len(have) >= n {
			return have
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%d commands applied, want %d", len(have), n)
		}
	}
}

// patience is how long tests wait for what must happen.
const patience = 20 * time.Second

// world is a cluster in one process: a file system and a network that tests can break.
type world struct {
	t       testing.TB
	peers   []Peer
	options func(*Options) // changes a node's options; may be nil

	mu struct {
		sync.Mutex
		nodes  map[string]*member
		apart  map[[2]string]bool          // pairs that cannot reach each other, in both orders
		silent map[[2]string]chan struct{} // from and to: what is sent waits until the channel is closed
		conns  map[net.Conn][2]string
	}
}

// member is one node: its disk, and its present life.
type member struct {
	id      string
	fs      vfs.FS
	node    *Node
	machine *history
	down    bool // guarded by world.mu
}

func newWorld(t testing.TB, n int, options func(*Options)) *world {
	w := &world{t: t, options: options}
	w.mu.nodes = make(map[string]*member)
	w.mu.apart = make(map[[2]string]bool)
	w.mu.conns = make(map[net.Conn][2]string)
	w.mu.silent = make(map[[2]string]chan struct{})
	for i := range n {
		id := string(rune('a' + i))
		w.peers = append(w.peers, Peer{ID: id, Address: "host-" + id})
	}
	t.Cleanup(func() {
		for _, p := range w.peers {
			w.kill(p.ID)
		}
	})
	return w
}

// start starts all nodes.
func (w *world) start() *world {
	for _, p := range w.peers {
		w.open(p.ID)
	}
	return w
}

// open starts a node on the disk that it had, or on an empty one.
func (w *world) open(id string) *member {
	w.t.Helper()
	w.mu.Lock()
	m := &member{id: id, machine: newHistory()}
	if old := w.mu.nodes[id]; old != nil {
		m.fs = old.fs
	} else {
		m.fs = vfs.NewCrashableMem()
	}
	w.mu.Unlock()
	o := Options{
		Cluster: "test", ID: id, Peers: w.peers, Dir: "/node", FS: m.fs,
		Dial: func(ctx context.Context, to Peer) (net.Conn, error) { return w.dial(ctx, id, to.ID) },
	}
	if os.Getenv("RAFTMETA_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", id)
	}
	if w.options != nil {
		w.options(&o)
	}
	var err error
	m.node, err = Open(o, m.machine)
	require.NoError(w.t, err)
	m.fs = o.FS
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.nodes[id] = m
	return m
}

// dial connects two nodes, unless the network is broken between them.
func (w *world) dial(_ context.Context, from, to string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	target := w.mu.nodes[to]
	if target == nil || target.down || w.mu.apart[[2]string{from, to}] {
		return nil, errors.New("connection refused")
	}
	one, other := net.Pipe()
	near := &wire{Conn: one, world: w, path: [2]string{to, from}, closed: make(chan struct{})}
	far := &wire{Conn: other, world: w, path: [2]string{from, to}, closed: make(chan struct{})}
	w.mu.conns[near] = [2]string{from, to}
	w.mu.conns[far] = [2]string{from, to}
	go func() {
		target.node.Serve(far)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.mu.conns, near)
		delete(w.mu.conns, far)
	}()
	return near, nil
}

// part breaks the network between a node and all others, or mends it.
func (w *world) part(id string, apart bool) {
	w.mu.Lock()
	var cut []net.Conn
	for _, p := range w.peers {
		if p.ID == id {
			continue
		}
		w.mu.apart[[2]string{id, p.ID}], w.mu.apart[[2]string{p.ID, id}] = apart, apart
	}
	for c, pair := range w.mu.conns {
		if apart && (pair[0] == id || pair[1] == id) {
			cut = append(cut, c)
		}
	}
	w.mu.Unlock()
	for _, c := range cut {
		_ = c.Close()
	}
}

// wire is one end of a connection, whose incoming bytes may be held up.
type wire struct {
	net.Conn
	world  *world
	path   [2]string // of what is read here: from and to
	once   sync.Once
	closed chan struct{}
}

func (c *wire) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.world.mu.Lock()
	gate := c.world.mu.silent[c.path]
	c.world.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return n, err
}

func (c *wire) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// silence holds up what one node sends to another, or lets it through again.
func (w *world) silence(from, to string, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	path := [2]string{from, to}
	gate := w.mu.silent[path]
	switch {
	case silent && gate == nil:
		w.mu.silent[path] = make(chan struct{})
	case !silent && gate != nil:
		close(gate)
		delete(w.mu.silent, path)
	}
}

// crash ends a node and leaves of its disk what would be left after a loss of power.
func (w *world) crash(id string, rng *rand.Rand) {
	w.part(id, true)
	m := w.member(id)
	if mem, ok := m.fs.(*vfs.MemFS); ok && !w.down(id) {
		fs := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * rng.IntN(2), RNG: rng})
		w.kill(id)
		m.fs = fs
	}
}

// mend ends all that was done to the network.
func (w *world) mend() {
	for _, p := range w.peers {
		w.part(p.ID, false)
		for _, q := range w.peers {
			w.silence(p.ID, q.ID, false)
		}
	}
}

// kill ends a node as a crash would: the network first, so that nothing is finished.
func (w *world) kill(id string) {
	w.mu.Lock()
	m := w.mu.nodes[id]
	alive := m != nil && !m.down
	if alive {
		m.down = true
	}
	w.mu.Unlock()
	if !alive {
		return
	}
	w.part(id, true)
	_ = m.node.Close()
	w.part(id, false)
}

func (w *world) member(id string) *member {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.nodes[id]
}

func (w *world) down(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.nodes[id].down
}

// alive lists the nodes that run.
func (w *world) alive() []*member {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*member
	for _, p := range w.peers {
		if m := w.mu.nodes[p.ID]; m != nil && !m.down {
			list = append(list, m)
		}
	}
	return list
}

// leader waits for a node that leads and has applied all that was committed before.
func (w *world) leader() *member {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		for _, m := range w.alive() {
			if _, self := m.node.Leader(); !self {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err := m.node.Barrier(ctx)
			cancel()
			if err == nil {
				return m
			}
		}
		pause(time.Millisecond)
	}
	w.t.Fatal("nobody leads")
	return nil
}

// successor waits for a leader that is not the given one.
func (w *world) successor(former *member) *member {
	w.t.Helper()
	for {
		if l := w.leader(); l != former {
			return l
		}
		pause(time.Millisecond)
	}
}

// logMedian logs what is in the middle, and the longest.
func logMedian(t testing.TB, what string, took []time.Duration) {
	slices.Sort(took)
	t.Logf("%s: median %v, longest %v of %d", what, took[len(took)/2], took[len(took)-1], len(took))
}

// pause lets others run; tests poll with it for what has no channel.
func pause(d time.Duration) { <-time.After(d) }

// propose waits for a proposal's answer.
func propose(n *Node, command string) error {
	answer := make(chan error, 1)
	n.Propose([]byte(command), func(err error) { answer <- err })
	return <-answer
}
