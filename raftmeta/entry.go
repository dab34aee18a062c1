package raftmeta

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The codecs of what the store keeps; docs/format/raft.md has the layouts. Each value ends in a CRC-32C over its key
// and its bytes, so that a value under another's key is found too.

const checksumSize = 4

// seal appends the checksum of key and value.
func seal(key, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(value, crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value))
}

// unseal checks the checksum and cuts it off.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - checksumSize
	if n < 0 {
		return nil, fmt.Errorf("%w: value under %x has %d bytes", ErrCorrupt, key, len(sealed))
	}
	want := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, sealed[:n])
	if have := binary.LittleEndian.Uint32(sealed[n:]); have != want {
		return nil, fmt.Errorf("%w: value under %x has checksum %08x, want %08x", ErrCorrupt, key, have, want)
	}
	return sealed[:n], nil
}

// appendEntry encodes an entry of the log, its index aside, which is in the key. The time at which a leader made it is
// dropped: nothing depends on it.
func appendEntry(dst []byte, l *raft.Log) []byte {
	dst = append(dst, byte(l.Type))
	dst = binary.AppendUvarint(dst, l.Term)
	dst = binary.AppendUvarint(dst, uint64(len(l.Extensions)))
	dst = append(dst, l.Extensions...)
	return append(dst, l.Data...)
}

// decodeEntry is the inverse of appendEntry. The entry's slices are parts of b.
func decodeEntry(index uint64, b []byte) (raft.Log, error) {
	r := reader{b: b}
	l := raft.Log{Index: index, Type: raft.LogType(r.byte())}
	l.Term = r.uvarint()
	l.Extensions = r.bytes()
	l.Data = r.b
	if r.bad || l.Term == 0 || l.Type > raft.LogConfiguration {
		return raft.Log{}, fmt.Errorf("%w: entry %d of the log, %d bytes", ErrCorrupt, index, len(b))
	}
	return l, nil
}

// reader takes values off the front of b; after the first that is not there, bad is set and the rest are zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if r.bad || len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes takes a length and as many bytes; nil if there are none.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) fail() { r.bad, r.b = true, nil }
