package transport

import "io"

const (
	firstChunk = 8 << 10
	// maxChunk is how much is read at once from a busy connection. Payloads stay where they were read, and a chunk lives as
	// long as one of them: see detachBelow.
	maxChunk = 256 << 10
	// growBelow: a frame that is longer gets memory as its bytes arrive, twice as much each time.
	growBelow = 1 << 20
)

// chunk reads ahead into memory that may be given away. Invariant: bytes that were lent are never written again.
type chunk struct {
	buf  []byte // buf[at:] was read and not handed out
	at   int
	size int  // of the next buffer: grows with what the connection carries
	lent bool // some of buf[:at] was given away
}

// fill reads until n bytes can be handed out. An error is io.EOF only if there is nothing left.
func (k *chunk) fill(read func(p []byte) (int, error), n int) error {
	for len(k.buf)-k.at < n {
		k.room(n)
		free := k.buf[len(k.buf):cap(k.buf)]
		m, err := read(free)
		k.buf = k.buf[:len(k.buf)+m]
		if m == len(free) {
			k.size = min(2*k.size, maxChunk)
		}
		if len(k.buf)-k.at >= n {
			return nil
		}
		if err == io.EOF && len(k.buf) > k.at {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// room makes room to read what n bytes still need, and more.
func (k *chunk) room(n int) {
	k.size = max(k.size, firstChunk)
	have := len(k.buf) - k.at
	if have == 0 && !k.lent {
		k.buf, k.at = k.buf[:0], 0
	}
	if have == 0 && cap(k.buf) > maxChunk {
		k.buf, k.at, k.lent = nil, 0, false // a long frame was in it
	}
	free, reach := cap(k.buf)-len(k.buf), cap(k.buf)-k.at
	if reach >= n && (have > 0 || free >= k.size/16) {
		return
	}
	if n > growBelow && reach >= growBelow && free > 0 {
		return // not enough for the frame, but for what comes next
	}
	if !k.lent && cap(k.buf) >= n {
		k.buf, k.at = k.buf[:copy(k.buf[:have], k.buf[k.at:])], 0
		return
	}
	want := n
	if n > growBelow {
		want = min(n, max(growBelow, 2*have)) // a length is only believed as far as its bytes have come
	}
	grown := make([]byte, have, max(want, k.size))
	copy(grown, k.buf[k.at:])
	k.buf, k.at, k.lent = grown, 0, false
	k.size = min(2*k.size, maxChunk)
}

// take hands out the next n bytes, which fill has read. They are valid until the next fill, or for good if lent is set before.
func (k *chunk) take(n int) []byte {
	p := k.buf[k.at : k.at+n : k.at+n]
	k.at += n
	return p
}

// rest hands out everything that was read ahead, for good.
func (k *chunk) rest() []byte {
	k.lent = true
	return k.take(len(k.buf) - k.at)
}
