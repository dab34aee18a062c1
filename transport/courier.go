package transport

import "sync"

// courier hands items on, one after the other, from a goroutine that runs while there are any. What bounds its queue is
// the window of what a peer may have under way.
type courier struct {
	spawn func(func()) bool // runs a function on a goroutine, unless all has ended
	hand  func(item []byte) // takes an item; may take its time
	after func()            // called after each item
	mu    struct {
		sync.Mutex
		queue   []delivery // the first is under way if busy
		held    uint64     // bytes of the stream in queue
		running bool
		ended   bool
	}
}

type delivery struct {
	item []byte
	size uint64 // in the stream; 0: it counts no more
}

func (c *courier) post(item []byte, size uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.ended {
		return
	}
	c.mu.queue = append(c.mu.queue, delivery{item, size})
	c.mu.held += size
	if !c.mu.running {
		c.mu.running = c.spawn(c.run)
	}
}

func (c *courier) run() {
	for {
		c.mu.Lock()
		if len(c.mu.queue) == 0 || c.mu.ended {
			c.mu.running = false
			c.mu.Unlock()
			return
		}
		item := c.mu.queue[0].item
		c.mu.Unlock()
		c.hand(item)
		c.mu.Lock()
		c.mu.held -= c.mu.queue[0].size
		c.mu.queue[0] = delivery{}
		c.mu.queue = c.mu.queue[1:]
		c.mu.Unlock()
		c.after()
	}
}

// held is how many bytes of the stream wait to be handed on.
func (c *courier) held() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.held
}

// renumber says that positions begin anew: what is held has none.
func (c *courier) renumber() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.mu.queue {
		c.mu.queue[i].size = 0
	}
	c.mu.held = 0
}

// end drops what was not handed on. An item that is under way stays so.
func (c *courier) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.ended = true
}
