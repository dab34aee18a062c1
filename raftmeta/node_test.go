package raftmeta

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAlone(t *testing.T) {
	w := newWorld(t, 1, nil)
	begin := time.Now()
	m := w.open("a")
	require.True(t, <-m.node.Lead())
	t.Logf("leads after %v", time.Since(begin))
	for i := range 100 {
		require.NoError(t, propose(m.node, fmt.Sprint(i)))
		require.Len(t, m.machine.all(), i+1) // done after Apply
	}
	want := m.machine.all()
	w.kill("a")
	m = w.open("a")
	w.leader()
	require.Equal(t, want, m.machine.all())
}

func TestThree(t *testing.T) {
	w := newWorld(t, 3, nil).start()
	l := w.leader()
	for i := range 100 {
		require.NoError(t, propose(l.node, fmt.Sprint(i)))
	}
	for _, m := range w.alive() {
		require.Equal(t, l.machine.all(), m.machine.await(t, 100))
	}
	begin := time.Now()
	w.kill(l.id)
	w.leader()
	t.Logf("fail-over took %v", time.Since(begin))
}
