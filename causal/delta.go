package causal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/understudy-stream/understudy/determinant"
)

// ErrCorrupt says that bytes are no delta.
var ErrCorrupt = errors.New("causal: corrupt delta")

const (
	deltaFormat = 0xd1 // first byte: format 1
	deltaSum    = 4    // last bytes: CRC-32C of everything before
	coveredBit  = 1
	partHead    = binary.MaxVarintLen32 + 1 + 2*binary.MaxVarintLen64 // most bytes before those of a log
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// part is the bytes of one log in a delta. p is part of the delta.
type part struct {
	task    determinant.TaskID
	from    uint64
	covered bool
	p       []byte
}

// DecodeDelta checks a delta and calls f for each log in it, in its order, until f returns an error, which it returns. The
// error for bytes that are no delta is ErrCorrupt, found before f is called at all. No bytes are an empty delta. p is part
// of delta.
func DecodeDelta(delta []byte, f func(t determinant.TaskID, from determinant.LogOffset, covered bool, p []byte) error) error {
	body, err := deltaBody(delta)
	if err != nil {
		return err
	}
	for rest := body; len(rest) > 0; {
		if _, rest, err = nextPart(rest); err != nil {
			return err
		}
	}
	for len(body) > 0 {
		var next part
		next, body, _ = nextPart(body)
		if err := f(next.task, determinant.LogOffset(next.from), next.covered, next.p); err != nil {
			return err
		}
	}
	return nil
}

// deltaBody checks the frame of a delta and returns what is in it.
func deltaBody(delta []byte) ([]byte, error) {
	if len(delta) == 0 {
		return nil, nil
	}
	if len(delta) <= 1+deltaSum {
		return nil, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(delta))
	}
	if delta[0] != deltaFormat {
		return nil, fmt.Errorf("%w: unknown format %#x", ErrCorrupt, delta[0])
	}
	body := delta[:len(delta)-deltaSum]
	got, want := crc32.Checksum(body, castagnoli), binary.LittleEndian.Uint32(delta[len(body):])
	if got != want {
		return nil, fmt.Errorf("%w: checksum %08x, expected %08x", ErrCorrupt, got, want)
	}
	return body[1:], nil
}

func nextPart(src []byte) (next part, rest []byte, err error) {
	task, src, ok := takeUvarint(src)
	if !ok || task > math.MaxUint32 {
		return part{}, nil, fmt.Errorf("%w: task", ErrCorrupt)
	}
	if len(src) == 0 || src[0] > coveredBit {
		return part{}, nil, fmt.Errorf("%w: flags of task %d", ErrCorrupt, task)
	}
	covered := src[0] == coveredBit
	from, src, ok := takeUvarint(src[1:])
	if !ok {
		return part{}, nil, fmt.Errorf("%w: offset of task %d", ErrCorrupt, task)
	}
	size, src, ok := takeUvarint(src)
	if !ok || size == 0 || size > uint64(len(src)) || from+size < from {
		return part{}, nil, fmt.Errorf("%w: length of task %d", ErrCorrupt, task)
	}
	return part{determinant.TaskID(task), from, covered, src[:size:size]}, src[size:], nil
}

// takeUvarint takes a canonical varint off the front of src.
func takeUvarint(src []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(src)
	if n <= 0 || n > 1 && src[n-1] == 0 {
		return 0, nil, false
	}
	return v, src[n:], true
}

// appendPart appends one log's bytes in [from, to).
func appendPart(dst []byte, t determinant.TaskID, covered bool, v *view, from, to uint64) []byte {
	dst = binary.AppendUvarint(dst, uint64(t))
	if covered {
		dst = append(dst, coveredBit)
	} else {
		dst = append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, from)
	dst = binary.AppendUvarint(dst, to-from)
	return v.read(dst, from, to)
}
