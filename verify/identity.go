package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

// maxKey is the longest key, in bytes, that is sorted as it is. Of a longer one its beginning and its SHA-256 are, so that a
// Sorter's records stay small.
const maxKey = 1 << 10

// boundKey replaces what was appended to key from start on by something short if it is too long.
func boundKey(key []byte, start int) []byte {
	if len(key)-start <= maxKey {
		return key
	}
	sum := sha256.Sum256(key[start:])
	return append(key[:start+maxKey], sum[:]...)
}

// identity makes one key out of the fields that identify a record.
type identity struct {
	fields []string
	joined bool // one text with colons between, because the other side has it in one field
	buf    []byte
}

// key returns the key of a row, whose first fields must be those of the identity. It is valid until the next call.
func (id *identity) key(r *row) ([]byte, error) {
	id.buf = id.buf[:0]
	for i, name := range id.fields {
		start := len(id.buf)
		var err error
		if id.buf, err = r.fields[i].appendText(id.buf); err != nil {
			return nil, r.fail("field %q %w", name, err)
		}
		switch last := i == len(id.fields)-1; {
		case last:
		case id.joined:
			id.buf = append(id.buf, ':')
		default:
			id.buf = frameText(id.buf, start)
		}
	}
	id.buf = boundKey(id.buf, 0)
	return id.buf, nil
}

// frameText puts the length of buf[start:] in front of it, so that several texts cannot run into one another.
func frameText(buf []byte, start int) []byte {
	n := len(buf) - start
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(n))
	buf = append(buf, length[:size]...)
	copy(buf[start+size:], buf[start:start+n])
	copy(buf[start:], length[:size])
	return buf
}

// show turns a key back into something to read.
func (id *identity) show(key []byte) string {
	if id.joined || len(id.fields) < 2 {
		return shorten(string(key))
	}
	var parts []string
	for len(parts) < len(id.fields)-1 {
		n, size := binary.Uvarint(key)
		if size <= 0 || n > uint64(len(key)-size) {
			break // cut off by boundKey
		}
		parts = append(parts, string(key[size:size+int(n)]))
		key = key[size+int(n):]
	}
	return shorten(strings.Join(append(parts, string(key)), ":"))
}

// identities pairs the id fields of the input with those of the output.
func identities(input, output []string) (in, out identity, err error) {
	if len(input) == 0 || len(output) == 0 {
		return in, out, fmt.Errorf("verify: no id field named")
	}
	in, out = identity{fields: input}, identity{fields: output}
	if len(input) == len(output) {
		return in, out, nil
	}
	if len(input) != 1 && len(output) != 1 {
		return in, out, fmt.Errorf("verify: the input's id has %d fields and the output's %d; they must be as many, or one",
			len(input), len(output))
	}
	in.joined, out.joined = true, true
	return in, out, nil
}

// defaultInputID chooses the fields that identify an input record when the caller did not: where a plain line stands, or the
// same fields as in the output.
func defaultInputID(sel *Selection, output []string) error {
	if len(sel.Fields) > 0 {
		return nil
	}
	files, err := expand(sel.Paths)
	if err != nil {
		return err
	}
	sel.Fields = output
	if sel.Format.of(files[0]) == Lines {
		sel.Fields = []string{"@file", "@offset"}
	}
	return nil
}

// sides of a check, as they stand in places.
const (
	sideInput byte = iota
	sideOutput
)

// appendPlace appends a place to a sorted record's value.
func appendPlace(value []byte, p place) []byte {
	value = append(value, p.side)
	value = binary.AppendUvarint(value, uint64(p.file))
	return binary.AppendUvarint(value, uint64(p.line))
}

// takePlace reads what appendPlace wrote and returns what follows it.
func takePlace(value []byte) (place, []byte) {
	p := place{side: value[0]}
	file, n := binary.Uvarint(value[1:])
	value = value[1+n:]
	number, n := binary.Uvarint(value)
	p.file, p.line = int(file), int64(number)
	return p, value[n:]
}
