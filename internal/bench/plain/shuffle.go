package plain

import (
	"math"
	"sync"

	"github.com/understudy-stream/understudy/internal/nexmark"
)

const (
	batchRecords = 1024
	batchesAhead = 8  // in a channel
	tellTime     = 64 // epochs of events after which a source says what time it is, if it has had nothing to send
)

// batch is what crosses a channel: records of one source, and a time before which it will send no more.
type batch[T any] struct {
	source  int
	records []T
	time    int64
}

// endOfTime is the time of a source that has read everything.
const endOfTime = math.MaxInt64

// shuffle is a channel to each worker.
type shuffle[T any] struct {
	channels []chan batch[T]
	spare    sync.Pool // *[]T
}

func newShuffle[T any](workers int) *shuffle[T] {
	s := &shuffle[T]{channels: make([]chan batch[T], workers)}
	for i := range s.channels {
		s.channels[i] = make(chan batch[T], batchesAhead)
	}
	return s
}

// port is a source's end of a shuffle.
type port[T any] struct {
	shuffle *shuffle[T]
	source  int
	open    [][]T // by worker
	quiet   int
}

func (s *shuffle[T]) port(source int) *port[T] {
	p := &port[T]{shuffle: s, source: source, open: make([][]T, len(s.channels))}
	for i := range p.open {
		p.open[i] = s.empty()
	}
	return p
}

func (s *shuffle[T]) empty() []T {
	if b, ok := s.spare.Get().(*[]T); ok {
		return (*b)[:0]
	}
	return make([]T, 0, batchRecords)
}

// send gives a record to the worker of a key. now is the time of the record.
func (p *port[T]) send(key, now int64, record T) {
	to := mix(uint64(key)) % uint64(len(p.open))
	p.open[to] = append(p.open[to], record)
	if len(p.open[to]) == batchRecords {
		p.flush(int(to), now)
	}
}

func (p *port[T]) flush(to int, now int64) {
	p.shuffle.channels[to] <- batch[T]{source: p.source, records: p.open[to], time: now}
	p.open[to] = p.shuffle.empty()
}

// epoch says that an epoch of events has been sent; now is the time of the last.
func (p *port[T]) epoch(events []nexmark.Event) {
	if p.quiet++; p.quiet >= tellTime && len(events) > 0 {
		p.flushAll(events[len(events)-1].Time())
	}
}

func (p *port[T]) flushAll(now int64) {
	p.quiet = 0
	for to := range p.open {
		p.flush(to, now)
	}
}

// mix spreads keys over workers (the finaliser of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// keyed runs a program of two halves: sources that read events and send records, and workers that take them. take gets a worker's
// records; reached is called when none with an earlier time can come any more, and at last with endOfTime.
func keyed[T any](p *program, send func(*port[T], *nexmark.Event), worker func(i int) (take func([]T), reached func(time int64))) error {
	s := newShuffle[T](p.Parallelism)
	var workers sync.WaitGroup
	for i := range p.Parallelism {
		take, reached := worker(i)
		workers.Go(func() { s.work(i, p.Parallelism, take, reached) })
	}
	err := p.sources(func(i int) error {
		out := s.port(i)
		err := p.read(i, func(events []nexmark.Event) {
			for j := range events {
				send(out, &events[j])
			}
			out.epoch(events)
		})
		out.flushAll(endOfTime)
		return err
	})
	for _, c := range s.channels {
		close(c)
	}
	workers.Wait()
	return err
}

// work is the loop of worker i.
func (s *shuffle[T]) work(i, sources int, take func([]T), reached func(int64)) {
	times := make([]int64, sources)
	least := int64(0)
	for b := range s.channels[i] {
		take(b.records)
		s.spare.Put(&b.records)
		times[b.source] = b.time
		now := times[0]
		for _, t := range times {
			now = min(now, t)
		}
		if now > least {
			least = now
			reached(now)
		}
	}
}
