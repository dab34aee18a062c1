package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// fate is what a client was told of a proposal.
type fate int

const (
	applied fate = iota
	refused
	unknown
)

// operation is a client's write or read of a register. Times are ticks of one counter, since virtual time stands still
// while anything happens.
type operation struct {
	client     int
	key        string
	command    string // of a write: key=value, with a value that no other has
	fate       fate
	read       string   // of a read: the key's last command
	seen       []string // of a read: all commands
	call, back int64
}

// clients propose and read, and note what they were told.
type clients struct {
	world *world
	stop  chan struct{}

	mu struct {
		sync.Mutex
		tick    int64
		history []operation
	}
}

func (c *clients) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.tick++
	return c.mu.tick
}

// note ends an operation. Invariant: the history is in the order of its ends.
func (c *clients) note(op operation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.tick++
	op.back = c.mu.tick
	c.mu.history = append(c.mu.history, op)
}

const registers = 4

// run is one client.
func (c *clients) run(id int, rng *rand.Rand) {
	for n := 0; ; n++ {
		select {
		case <-c.stop:
			return
		case <-time.After(time.Duration(rng.IntN(20)) * time.Millisecond):
		}
		nodes := c.world.alive()
		if len(nodes) == 0 {
			continue
		}
		m := nodes[rng.IntN(len(nodes))]
		for _, x := range nodes {
			if _, self := x.node.Leader(); self && rng.IntN(10) > 0 {
				m = x
			}
		}
		op := operation{client: id, key: fmt.Sprint("r", rng.IntN(registers)), call: c.now()}
		if rng.IntN(4) == 0 {
			c.read(m, op)
			continue
		}
		for range 1 + rng.IntN(4) { // some at once, which share an entry
			n++
			write := op
			write.command = fmt.Sprintf("%s=%d.%d", op.key, id, n)
			write.call = c.now()
			answer := make(chan error, 1)
			m.node.Propose([]byte(write.command), func(err error) { answer <- err })
			if rng.IntN(2) == 0 {
				c.settle(write, <-answer)
			} else {
				go func() { c.settle(write, <-answer) }()
			}
		}
	}
}

func (c *clients) settle(op operation, err error) {
	switch {
	case err == nil:
		op.fate = applied
	case errors.Is(err, ErrNotLeader):
		op.fate = refused
	case errors.Is(err, ErrLost):
		op.fate = unknown
	default:
		panic(err)
	}
	c.note(op)
}

func (c *clients) read(m *member, op operation) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if m.node.Barrier(ctx) != nil {
		return
	}
	op.seen = m.machine.all()
	for _, command := range op.seen {
		if strings.HasPrefix(command, op.key+"=") {
			op.read = command
		}
	}
	c.note(op)
}

// troubles are what is done to the cluster while clients work, in turn.
var troubles = []string{"crash", "mend", "one way", "crash", "kill", "mend", "part", "silence", "mend", "all"}

func trouble(w *world, rng *rand.Rand, kind string, kinds map[string]int) {
	id := w.peers[rng.IntN(len(w.peers))].ID
	for _, m := range w.alive() {
		if _, self := m.node.Leader(); self && rng.IntN(2) == 0 {
			id = m.id
		}
	}
	other := w.peers[rng.IntN(len(w.peers))].ID
	if w.down(id) {
		kinds["restart"]++
		w.open(id)
	}
	kinds[kind]++
	switch kind {
	case "crash":
		w.crash(id, rng)
	case "kill":
		w.kill(id)
	case "part":
		w.part(id, true)
	case "one way":
		w.silence(id, other, true)
	case "silence":
		for _, p := range w.peers {
			w.silence(id, p.ID, true)
			w.silence(p.ID, id, true)
		}
	case "mend":
		w.mend()
	case "all":
		for _, m := range w.alive() {
			w.crash(m.id, rng)
		}
	}
}

// TestChaos lets clients work while nodes die, disks lose what is not synced and the network breaks, and then looks at what
// they were told.
func TestChaos(t *testing.T) {
	kinds, restores := map[string]int{}, 0
	fates := map[fate]int{}
	for seed := range uint64(chaosSeeds) {
		var c *clients
		var final []string
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3, func(o *Options) { o.SnapshotEvery = 30 }).start()
			c = &clients{world: w, stop: make(chan struct{})}
			var working sync.WaitGroup
			for i := range 4 {
				working.Go(func() { c.run(i, rand.New(rand.NewPCG(seed, uint64(10+i)))) })
			}
			rng := rand.New(rand.NewPCG(seed, 1))
			lives := map[*history]bool{}
			for i := range 40 {
				pause(time.Duration(rng.IntN(400)) * time.Millisecond)
				trouble(w, rng, troubles[i%len(troubles)], kinds)
				for _, m := range w.alive() {
					lives[m.machine] = true
				}
			}
			w.mend()
			for _, p := range w.peers {
				if w.down(p.ID) {
					w.open(p.ID)
				}
			}
			pause(time.Second)
			close(c.stop)
			working.Wait()
			final = w.leader().machine.all()
			for _, m := range w.alive() {
				require.Equal(t, final, m.machine.await(t, len(final)))
				lives[m.machine] = true
			}
			for h := range lives { // each life of each node has seen a prefix
				require.True(t, slices.Equal(final[:len(h.all())], h.all()))
				restores += h.mu.restores
			}
		})
		c.check(t, final, fates)
	}
	t.Logf("%v, %d snapshots restored, fates %v", kinds, restores, fates)
	require.Len(t, kinds, 8)
	require.Positive(t, restores)
	if chaosSeeds > 1 {
		require.Positive(t, fates[unknown])
	}
}

// check compares what clients were told with what has become of it.
func (c *clients) check(t *testing.T, final []string, fates map[fate]int) {
	t.Helper()
	place := map[string]int{}
	for i, command := range final {
		_, twice := place[command]
		require.False(t, twice, "%s was applied twice", command)
		place[command] = i
	}
	var ops []porcupine.Operation
	latest := 0 // commands that a client was told of, in real time
	told := make(map[int64]int)
	for _, op := range c.mu.history {
		at, there := place[op.command]
		switch {
		case op.command == "":
			require.True(t, slices.Equal(final[:len(op.seen)], op.seen), "a read saw what is not the log")
			latest = max(latest, len(op.seen))
		case op.fate == applied:
			require.True(t, there, "%s was acknowledged and is lost", op.command)
			latest = max(latest, at+1)
		case op.fate == refused:
			require.False(t, there, "%s was refused and is applied", op.command)
		}
		told[op.back] = latest
		if op.command != "" {
			fates[op.fate]++
		}
		if op.command != "" && op.fate == refused {
			continue
		}
		if op.fate == unknown {
			op.back = c.mu.tick + 1 // it may still come
		}
		ops = append(ops, porcupine.Operation{ClientId: op.client, Input: op, Output: op, Call: op.call, Return: op.back})
	}
	c.checkOrder(t, place, told)
	result := porcupine.CheckOperationsTimeout(register, ops, time.Minute)
	require.Equal(t, porcupine.Ok, result, "registers are not linearizable")
}

// checkOrder: what was proposed after an answer comes after everything that the answer told of.
func (c *clients) checkOrder(t *testing.T, place map[string]int, told map[int64]int) {
	t.Helper()
	least := make([]int, c.mu.tick+1)
	for i := int64(1); i <= c.mu.tick; i++ {
		least[i] = max(least[i-1], told[i])
	}
	for _, op := range c.mu.history {
		if at, there := place[op.command]; there {
			require.GreaterOrEqual(t, at, least[op.call], "%s overtook what was acknowledged before", op.command)
		}
		if op.command == "" {
			require.GreaterOrEqual(t, len(op.seen), least[op.call], "a read did not see what was acknowledged before")
		}
	}
}

// register is the model of one register: a write takes effect, or never if it is not known; a read returns the last write.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(operation).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		op := input.(operation)
		if op.command == "" {
			return state == op.read, state
		}
		return true, op.command
	},
}
