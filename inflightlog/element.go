package inflightlog

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/understudy-stream/understudy/determinant"
)

// Kind says what an element is.
type Kind uint8

// The kinds of element. The numbers are the tags of the byte format and never change.
const (
	Record    Kind = 1 // user data
	Watermark Kind = 2 // no record with an earlier event time is expected after this
	Barrier   Kind = 3 // checkpoint Epoch; ends the epoch
	Skip      Kind = 4 // checkpoint Epoch was abandoned; ends the epoch
	Idle      Kind = 5 // the channel does not hold watermarks back until it is active again
	Active    Kind = 6 // the channel counts for watermarks again
	End       Kind = 7 // no further record will come; barriers still do
)

// String gives the kind's name.
func (k Kind) String() string {
	switch k {
	case Record:
		return "record"
	case Watermark:
		return "watermark"
	case Barrier:
		return "barrier"
	case Skip:
		return "skip"
	case Idle:
		return "idle"
	case Active:
		return "active"
	case End:
		return "end"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// EndsEpoch tells whether an element of this kind is the last of its epoch.
func (k Kind) EndsEpoch() bool { return k == Barrier || k == Skip }

// Seals tells whether an element of this kind is the last of its batch.
func (k Kind) Seals() bool { return k == Barrier || k == Skip || k == End }

// Element is one decoded element. Kind says which of the fields count; the others are zero.
type Element struct {
	Kind    Kind
	HasTime bool              // Record: it has an event time
	Mode    determinant.Mode  // Barrier, Skip: mode of the next epoch
	Depth   determinant.Depth // Barrier, Skip: sharing depth of the next epoch
	Time    int64             // Record with HasTime: event time; Watermark: its value. Milliseconds since the Unix epoch
	Epoch   determinant.Epoch // Barrier, Skip: the epoch that ends here
	Payload []byte            // Record: aliases the bytes that were decoded, immutable like them
}

const (
	kindMask = 0x07
	timeFlag = 0x08
	// maxRecordHeader is the longest that a record's bytes before its payload can be: tag, event time, length.
	maxRecordHeader = 1 + 8 + binary.MaxVarintLen64
)

// AppendRecord appends the bytes of a record, which depend on nothing but the arguments.
func AppendRecord(dst []byte, ts int64, hasTime bool, payload []byte) []byte {
	if hasTime {
		dst = append(dst, byte(Record)|timeFlag)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(ts))
	} else {
		dst = append(dst, byte(Record))
	}
	dst = binary.AppendUvarint(dst, uint64(len(payload)))
	return append(dst, payload...)
}

// AppendControl appends the bytes of an element that is not a record.
func AppendControl(dst []byte, e Element) []byte {
	dst = append(dst, byte(e.Kind))
	switch e.Kind {
	case Watermark:
		return binary.AppendVarint(dst, e.Time)
	case Barrier, Skip:
		dst = binary.AppendUvarint(dst, uint64(e.Epoch))
		dst = append(dst, byte(e.Mode))
		return binary.AppendUvarint(dst, uint64(e.Depth))
	case Idle, Active, End:
		return dst
	}
	panic(fmt.Sprintf("inflightlog: assertion: %v is not a control element", e.Kind))
}

// Decode reads the element at the start of src into out and returns its length. It accepts exactly what AppendRecord and
// AppendControl write; anything else is ErrCorrupt, never a panic. out.Payload aliases src.
func Decode(src []byte, out *Element) (n int, err error) {
	if len(src) == 0 {
		return 0, corrupt("no bytes")
	}
	tag := src[0]
	kind := Kind(tag & kindMask)
	if kind == Record {
		return decodeRecord(src, out)
	}
	if tag != byte(kind) || kind == 0 {
		return 0, corrupt("tag %#02x", tag)
	}
	*out = Element{Kind: kind}
	rest := src[1:]
	switch kind {
	case Watermark:
		u, n, err := uvarint(rest)
		if err != nil {
			return 0, err
		}
		out.Time = int64(u>>1) ^ -int64(u&1)
		return 1 + n, nil
	case Barrier, Skip:
		return decodeBarrier(src, out)
	}
	return 1, nil
}

func decodeRecord(src []byte, out *Element) (int, error) {
	*out = Element{Kind: Record}
	at := 1
	switch src[0] {
	case byte(Record):
	case byte(Record) | timeFlag:
		if len(src) < 9 {
			return 0, corrupt("record ends in its event time")
		}
		out.HasTime = true
		out.Time = int64(binary.LittleEndian.Uint64(src[1:]))
		at = 9
	default:
		return 0, corrupt("tag %#02x", src[0])
	}
	size, n, err := uvarint(src[at:])
	if err != nil {
		return 0, err
	}
	at += n
	if size > uint64(len(src)-at) {
		return 0, corrupt("record of %d bytes, %d left", size, len(src)-at)
	}
	end := at + int(size)
	out.Payload = src[at:end:end]
	return end, nil
}

func decodeBarrier(src []byte, out *Element) (int, error) {
	at := 1
	epoch, n, err := uvarint(src[at:])
	if err != nil {
		return 0, err
	}
	at += n
	if at == len(src) {
		return 0, corrupt("%v ends before its mode", out.Kind)
	}
	mode := determinant.Mode(src[at])
	if mode > determinant.None {
		return 0, corrupt("%v with mode %d", out.Kind, mode)
	}
	at++
	depth, n, err := uvarint(src[at:])
	if err != nil {
		return 0, err
	}
	if depth > math.MaxUint16 {
		return 0, corrupt("%v with depth %d", out.Kind, depth)
	}
	out.Epoch, out.Mode, out.Depth = determinant.Epoch(epoch), mode, determinant.Depth(depth)
	return at + n, nil
}

// uvarint reads a varint in its shortest form only.
func uvarint(src []byte) (uint64, int, error) {
	if len(src) > 0 && src[0] < 0x80 {
		return uint64(src[0]), 1, nil
	}
	v, n := binary.Uvarint(src)
	if n <= 0 {
		return 0, 0, corrupt("varint is cut off or too long")
	}
	if n > 1 && src[n-1] == 0 {
		return 0, 0, corrupt("varint is not in its shortest form")
	}
	return v, n, nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w element: "+format, append([]any{ErrCorrupt}, args...)...)
}
