package operator

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// MessagePack's tags, as far as they are used here.
const (
	tagNil      = 0xc0
	tagFalse    = 0xc2
	tagTrue     = 0xc3
	tagBin8     = 0xc4
	tagBin16    = 0xc5
	tagBin32    = 0xc6
	tagExt8     = 0xc7
	tagFloat32  = 0xca
	tagFloat64  = 0xcb
	tagUint8    = 0xcc
	tagUint16   = 0xcd
	tagUint32   = 0xce
	tagUint64   = 0xcf
	tagInt8     = 0xd0
	tagInt16    = 0xd1
	tagInt32    = 0xd2
	tagInt64    = 0xd3
	tagStr8     = 0xd9
	tagStr16    = 0xda
	tagStr32    = 0xdb
	tagArray16  = 0xdc
	tagArray32  = 0xdd
	tagMap16    = 0xde
	tagMap32    = 0xdf
	tagFixArray = 0x90
	tagFixMap   = 0x80
	tagFixStr   = 0xa0
	extTime     = 0xff // type -1
)

func short(what string, src []byte) error {
	if len(src) == 0 {
		return fmt.Errorf("%w: %s is cut short", ErrEncoding, what)
	}
	return fmt.Errorf("%w: %s expected, found tag %#02x with %d bytes", ErrEncoding, what, src[0], len(src))
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, tagTrue)
	}
	return append(dst, tagFalse)
}

func readBool(src []byte) (bool, []byte, error) {
	if len(src) == 0 || src[0] != tagTrue && src[0] != tagFalse {
		return false, nil, short("a boolean", src)
	}
	return src[0] == tagTrue, src[1:], nil
}

// appendInt and appendUint choose the shortest form, so that a number has one encoding.
func appendInt(dst []byte, v int64) []byte {
	switch {
	case v >= 0:
		return appendUint(dst, uint64(v))
	case v >= -32:
		return append(dst, byte(v))
	case v >= math.MinInt8:
		return append(dst, tagInt8, byte(v))
	case v >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, tagInt16), uint16(v))
	case v >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, tagInt32), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, tagInt64), uint64(v))
}

func appendUint(dst []byte, v uint64) []byte {
	switch {
	case v <= math.MaxInt8:
		return append(dst, byte(v))
	case v <= math.MaxUint8:
		return append(dst, tagUint8, byte(v))
	case v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, tagUint16), uint16(v))
	case v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, tagUint32), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, tagUint64), v)
}

func readInt(src []byte) (int64, []byte, error) {
	if len(src) == 0 {
		return 0, nil, short("an integer", src)
	}
	if tag := src[0]; tag >= 0xe0 {
		return int64(int8(tag)), src[1:], nil
	}
	switch src[0] {
	case tagInt8:
		if len(src) >= 2 {
			return int64(int8(src[1])), src[2:], nil
		}
	case tagInt16:
		if len(src) >= 3 {
			return int64(int16(binary.BigEndian.Uint16(src[1:]))), src[3:], nil
		}
	case tagInt32:
		if len(src) >= 5 {
			return int64(int32(binary.BigEndian.Uint32(src[1:]))), src[5:], nil
		}
	case tagInt64:
		if len(src) >= 9 {
			return int64(binary.BigEndian.Uint64(src[1:])), src[9:], nil
		}
	default:
		v, rest, err := readUint(src)
		if err == nil && v > math.MaxInt64 {
			err = fmt.Errorf("%w: integer %d is too big", ErrEncoding, v)
		}
		return int64(v), rest, err
	}
	return 0, nil, short("an integer", src)
}

func readUint(src []byte) (uint64, []byte, error) {
	if len(src) == 0 {
		return 0, nil, short("an integer", src)
	}
	if tag := src[0]; tag <= math.MaxInt8 {
		return uint64(tag), src[1:], nil
	}
	switch src[0] {
	case tagUint8:
		if len(src) >= 2 {
			return uint64(src[1]), src[2:], nil
		}
	case tagUint16:
		if len(src) >= 3 {
			return uint64(binary.BigEndian.Uint16(src[1:])), src[3:], nil
		}
	case tagUint32:
		if len(src) >= 5 {
			return uint64(binary.BigEndian.Uint32(src[1:])), src[5:], nil
		}
	case tagUint64:
		if len(src) >= 9 {
			return binary.BigEndian.Uint64(src[1:]), src[9:], nil
		}
	}
	return 0, nil, short("an integer", src)
}

func appendFloat32(dst []byte, v float32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, tagFloat32), math.Float32bits(v))
}

func readFloat32(src []byte) (float32, []byte, error) {
	if len(src) < 5 || src[0] != tagFloat32 {
		return 0, nil, short("a 32-bit float", src)
	}
	return math.Float32frombits(binary.BigEndian.Uint32(src[1:])), src[5:], nil
}

func appendFloat64(dst []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, tagFloat64), math.Float64bits(v))
}

func readFloat64(src []byte) (float64, []byte, error) {
	if len(src) < 9 || src[0] != tagFloat64 {
		return 0, nil, short("a 64-bit float", src)
	}
	return math.Float64frombits(binary.BigEndian.Uint64(src[1:])), src[9:], nil
}

// sizedTags are the tags of one family of values that begin with a length.
type sizedTags struct {
	what            string
	fix             byte // 0: there is no short form
	fixMax          int
	tag8            byte // 0: there is none
	tag16, tag32    byte
	leastPerElement int // bytes that an element takes at least: guards against lengths that were made up
}

var (
	strTags   = sizedTags{"a string", tagFixStr, 31, tagStr8, tagStr16, tagStr32, 1}
	binTags   = sizedTags{"bytes", 0, -1, tagBin8, tagBin16, tagBin32, 1}
	arrayTags = sizedTags{"an array", tagFixArray, 15, 0, tagArray16, tagArray32, 1}
	mapTags   = sizedTags{"a map", tagFixMap, 15, 0, tagMap16, tagMap32, 2}
)

func (t *sizedTags) append(dst []byte, n int) []byte {
	switch {
	case n <= t.fixMax:
		return append(dst, t.fix|byte(n))
	case t.tag8 != 0 && n <= math.MaxUint8:
		return append(dst, t.tag8, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, t.tag16), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, t.tag32), uint32(n))
}

func (t *sizedTags) read(src []byte) (n int, rest []byte, err error) {
	if len(src) == 0 {
		return 0, nil, short(t.what, src)
	}
	tag := src[0]
	switch {
	case t.fixMax > 0 && tag >= t.fix && int(tag) <= int(t.fix)+t.fixMax:
		n, rest = int(tag-t.fix), src[1:]
	case tag == t.tag8 && t.tag8 != 0 && len(src) >= 2:
		n, rest = int(src[1]), src[2:]
	case tag == t.tag16 && len(src) >= 3:
		n, rest = int(binary.BigEndian.Uint16(src[1:])), src[3:]
	case tag == t.tag32 && len(src) >= 5:
		n, rest = int(binary.BigEndian.Uint32(src[1:])), src[5:]
	default:
		return 0, nil, short(t.what, src)
	}
	if n > len(rest)/t.leastPerElement {
		return 0, nil, fmt.Errorf("%w: %s of length %d in %d bytes", ErrEncoding, t.what, n, len(rest))
	}
	return n, rest, nil
}

// appendTime writes the 96-bit timestamp extension, for any year.
func appendTime(dst []byte, v time.Time) []byte {
	dst = append(dst, tagExt8, 12, extTime)
	dst = binary.BigEndian.AppendUint32(dst, uint32(v.Nanosecond()))
	return binary.BigEndian.AppendUint64(dst, uint64(v.Unix()))
}

func readTime(src []byte) (time.Time, []byte, error) {
	if len(src) < 15 || src[0] != tagExt8 || src[1] != 12 || src[2] != extTime {
		return time.Time{}, nil, short("a time", src)
	}
	ns := binary.BigEndian.Uint32(src[3:])
	if ns >= 1e9 {
		return time.Time{}, nil, fmt.Errorf("%w: %d nanoseconds in a time", ErrEncoding, ns)
	}
	return time.Unix(int64(binary.BigEndian.Uint64(src[7:])), int64(ns)).UTC(), src[15:], nil
}
