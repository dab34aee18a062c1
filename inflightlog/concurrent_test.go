package inflightlog

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

// One goroutine appends, one reads and now and then resubscribes, one truncates what the reader has passed, one fences the
// subscription from outside. The reader must see every byte once, in order.
func TestConcurrentAppendReadTruncate(t *testing.T) {
	const epochs, perEpoch = 60, 200
	payload := func(seq int) []byte { return bytes.Repeat([]byte{byte(seq)}, seq%97) }
	h := newHistory(Origin)
	for e := range epochs {
		for i := range perEpoch {
			h.add(AppendRecord(nil, 0, false, payload(e*perEpoch+i)))
		}
		h.add(AppendControl(nil, Element{Kind: Barrier, Epoch: determinant.Epoch(e + 1)}))
	}
	files := newMemFiles()
	budget := NewBudget(6000, 1<<30, 0, files)
	l := NewLog(Origin, Options{Retain: true, Budget: budget, SealBytes: 400, SegmentBytes: 3000, ReadAhead: 2000})
	var passed atomic.Uint64
	var done atomic.Bool
	var all, others sync.WaitGroup
	all.Go(func() {
		for e := range epochs {
			for i := range perEpoch {
				l.Record(0, false, payload(e*perEpoch+i))
				l.Commit()
				if i%13 == 0 {
					l.Seal()
					_ = l.Ahead()
				}
			}
			l.Control(Element{Kind: Barrier, Epoch: determinant.Epoch(e + 1)})
		}
	})
	all.Go(func() {
		defer done.Store(true)
		at := Origin
		resubscribe := func() {
			for {
				err := l.Subscribe(at)
				if err == nil {
					return
				}
				if !errors.Is(err, ErrReplaced) {
					t.Errorf("subscribing at %v: %v", at, err)
					return
				}
			}
		}
		for n := 0; at != h.end() && !t.Failed(); n++ {
			if n%50 == 0 || !l.Subscribed() {
				resubscribe()
			}
			b, err := l.Next(2000)
			if err != nil {
				t.Errorf("at %v: %v", at, err)
				return
			}
			if b == nil {
				runtime.Gosched()
				continue
			}
			if err := b.Check(0, at); err != nil || !bytes.Equal(b.Payload, h.join(b.First, b.End.Next)) {
				t.Errorf("at %v: %v", at, err)
				return
			}
			at = b.End
			l.Grant(at.Next)
			passed.Store(uint64(at.Epoch) - 1)
		}
	})
	others.Go(func() {
		for !done.Load() {
			l.Truncate(determinant.Epoch(passed.Load()))
			_, _ = l.Retained()
			_ = l.Unsent()
			runtime.Gosched()
		}
	})
	others.Go(func() {
		for i := 0; !done.Load(); i++ {
			if i%1000 == 0 {
				l.Unsubscribe()
			}
			runtime.Gosched()
		}
	})
	all.Wait()
	others.Wait()
	require.NoError(t, budget.Err())
	require.NoError(t, l.Close())
	memory, disk := budget.Used()
	n, _ := files.size()
	require.Zero(t, memory+disk+int64(n))
}

// Several logs share one budget: together they never exceed it.
func TestConcurrentLogsShareABudget(t *testing.T) {
	const limit = 20_000
	budget := NewBudget(limit, 1<<30, 0, newMemFiles())
	logs := make([]*Log, 4)
	histories := make([]*history, len(logs))
	var all, watch sync.WaitGroup
	var done atomic.Bool
	watch.Go(func() {
		for !done.Load() {
			if memory, _ := budget.Used(); memory > limit {
				t.Errorf("%d bytes in memory", memory)
				return
			}
			runtime.Gosched()
		}
	})
	for i := range logs {
		logs[i] = NewLog(Origin, Options{Retain: true, Budget: budget, SealBytes: 700, Channel: determinant.ChannelID(i)})
		histories[i] = newHistory(Origin)
		all.Go(func() {
			for n := range 2000 {
				histories[i].put(logs[i], bytes.Repeat([]byte{byte(n)}, n%100))
			}
			logs[i].Seal()
		})
	}
	all.Wait()
	done.Store(true)
	watch.Wait()
	for i, l := range logs {
		require.NoError(t, l.Subscribe(Origin))
		require.Equal(t, histories[i].end(), histories[i].drain(t, l, Origin))
		require.NoError(t, l.Close())
	}
	memory, disk := budget.Used()
	require.Zero(t, memory+disk)
}
