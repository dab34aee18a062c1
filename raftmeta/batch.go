package raftmeta

import (
	"encoding/binary"
	"fmt"
)

// One entry of Raft's log carries all commands that were waiting when it was made, so that they share a sync and a round
// trip: their number, and each with its length. None at all is a barrier.

const (
	// batchBytes and batchCommands end a batch. One command that is larger goes alone.
	batchBytes    = 1 << 20
	batchCommands = 4096
)

// appendBatch encodes commands.
func appendBatch(dst []byte, commands [][]byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(commands)))
	for _, c := range commands {
		dst = binary.AppendUvarint(dst, uint64(len(c)))
		dst = append(dst, c...)
	}
	return dst
}

// decodeBatch is the inverse of appendBatch. The commands are parts of b.
func decodeBatch(b []byte) ([][]byte, error) {
	r := reader{b: b}
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) { // each takes a byte at least
		return nil, fmt.Errorf("%w: batch of %d commands in %d bytes", ErrCorrupt, n, len(b))
	}
	commands := make([][]byte, 0, n)
	for range n {
		commands = append(commands, r.bytes())
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: batch of %d commands in %d bytes", ErrCorrupt, n, len(b))
	}
	return commands, nil
}
