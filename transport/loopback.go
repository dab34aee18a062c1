package transport

import "sync"

// loopback is a worker's link with itself: no connection, no encoding.
type loopback struct {
	mesh     *Mesh
	couriers [classes]courier
	mu       struct {
		sync.Mutex
		running bool
		woken   bool
		ended   bool
	}
}

func (l *loopback) init(m *Mesh) {
	l.mesh = m
	for c := range l.couriers {
		l.couriers[c].spawn = l.spawn
		l.couriers[c].hand = func(item []byte) { m.o.Endpoint.Control(m.o.Self, item) }
		l.couriers[c].after = func() {}
	}
}

func (l *loopback) spawn(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mu.ended {
		l.mesh.running.Go(f)
	}
	return !l.mu.ended
}

func (l *loopback) send(item []byte, class int) bool {
	l.couriers[class].post(item, uint64(len(item)))
	return true
}

func (l *loopback) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.woken = true
	if !l.mu.running && !l.mu.ended {
		l.mu.running = true
		l.mesh.running.Go(l.run)
	}
}

// run passes messages on until there are none.
func (l *loopback) run() {
	e := l.mesh.o.Endpoint
	for l.more() {
		for m := e.Write(l.mesh.o.Self); m != nil && !l.over(); m = e.Write(l.mesh.o.Self) {
			e.Receive(m)
		}
	}
}

// more tells whether run is to look again.
func (l *loopback) more() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	again := l.mu.woken && !l.mu.ended
	l.mu.woken, l.mu.running = false, again
	return again
}

func (l *loopback) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.ended
}

func (l *loopback) end() {
	l.mu.Lock()
	l.mu.ended = true
	l.mu.Unlock()
	for c := range l.couriers {
		l.couriers[c].end()
	}
}
