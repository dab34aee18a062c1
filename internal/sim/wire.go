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

// carryMessage does the same for a message between workers. What checkers have tied to a batch comes along.
func (w *World) carryMessage(m *transport.Message) *transport.Message {
	if !w.plan.encoded {
		return m
	}
	body, err := transport.AppendMessage(nil, m)
	if err != nil {
		w.violate("encoding", "message of worker %d: %v", m.From, err)
		return m
	}
	arrived, rest, err := transport.DecodeMessage(body, transport.Limits{Tasks: len(w.job.Tasks), Channels: len(w.job.Channels)})
	if err != nil || len(rest) > 0 || len(arrived.Frames) != len(m.Frames) {
		w.violate("encoding", "message of worker %d: %v, %d bytes are left", m.From, err, len(rest))
		return m
	}
	for i := range arrived.Frames {
		arrived.Frames[i].Batch.Tag = m.Frames[i].Batch.Tag
	}
	return arrived
}
