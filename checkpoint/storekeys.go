package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// Keys of a store's database. All that belongs to one task's state is one range of keys, in the order of an image:
//
//	i                                    identity of the job
//	m task(4, big endian)                Meta of the committed checkpoint
//	e task(4, big endian) table 00 01 key   an entry; a 00 in the table's name is written 00 ff
const (
	keyIdentity = 'i'
	keyMeta     = 'm'
	keyEntry    = 'e'
)

func metaKey(t determinant.TaskID) []byte {
	return binary.BigEndian.AppendUint32([]byte{keyMeta}, uint32(t))
}

// entryRange gives the bounds of a task's entries: the first key and the one after the last.
func entryRange(t determinant.TaskID) (from, to []byte) {
	from = binary.BigEndian.AppendUint32([]byte{keyEntry}, uint32(t))
	to = bytes.Clone(from)
	for i := len(to) - 1; ; i-- {
		to[i]++
		if to[i] != 0 {
			return from, to
		}
	}
}

// appendTable appends the key of the empty key in a table: what all keys of the table start with.
func appendTable(dst []byte, t determinant.TaskID, table string) []byte {
	dst = append(dst, keyEntry)
	dst = binary.BigEndian.AppendUint32(dst, uint32(t))
	for i := range len(table) {
		dst = append(dst, table[i])
		if table[i] == 0 {
			dst = append(dst, 0xff)
		}
	}
	return append(dst, 0, 1)
}

// tableEnd tells how many bytes at the front of an entry's database key name its table.
func tableEnd(key []byte) (int, error) {
	for i := 5; i+1 < len(key); i++ {
		if key[i] != 0 {
			continue
		}
		if key[i+1] == 1 {
			return i + 2, nil
		}
		i++
	}
	return 0, fmt.Errorf("%w: entry key %x", ErrCorrupt, key)
}

// tableName is the inverse of appendTable.
func tableName(prefix []byte) string {
	return string(bytes.ReplaceAll(prefix[5:len(prefix)-2], []byte{0, 0xff}, []byte{0}))
}
