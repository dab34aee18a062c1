package main

import (
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/understudy-stream/understudy/connector/file"
)

var errShortRecord = errors.New("understudy: record is cut off")

// lineCodec codes a file.Line as varint length and bytes of its file, varint offset, text.
type lineCodec struct{}

func (lineCodec) Append(dst []byte, l file.Line) ([]byte, error) {
	dst = binary.AppendUvarint(dst, uint64(len(l.File)))
	dst = append(dst, l.File...)
	dst = binary.AppendUvarint(dst, l.Offset)
	return append(dst, l.Text...), nil
}

func (lineCodec) Decode(src []byte) (l file.Line, err error) {
	n, k := binary.Uvarint(src)
	if k <= 0 || n > uint64(len(src)-k) {
		return l, errShortRecord
	}
	l.File = string(src[k : k+int(n)])
	src = src[k+int(n):]
	if l.Offset, k = binary.Uvarint(src); k <= 0 {
		return l, errShortRecord
	}
	l.Text = string(src[k:])
	return l, nil
}

// wordCountCodec codes a wordCount in state and between tasks: varint count, word.
type wordCountCodec struct{}

func (wordCountCodec) Append(dst []byte, c wordCount) ([]byte, error) {
	return append(binary.AppendVarint(dst, c.Count), c.Word...), nil
}

func (wordCountCodec) Decode(src []byte) (wordCount, error) {
	n, k := binary.Varint(src)
	if k <= 0 {
		return wordCount{}, errShortRecord
	}
	return wordCount{Word: string(src[k:]), Count: n}, nil
}

// wordCountJSON is a wordCount as a line of JSON. Words hold nothing that JSON escapes.
type wordCountJSON struct{ wordCountCodec }

func (wordCountJSON) Append(dst []byte, c wordCount) ([]byte, error) {
	dst = append(dst, `{"word":"`...)
	dst = append(dst, c.Word...)
	dst = append(dst, `","count":`...)
	dst = strconv.AppendInt(dst, c.Count, 10)
	return append(dst, '}'), nil
}

// textCodec writes a string as it is.
type textCodec struct{}

func (textCodec) Append(dst []byte, s string) ([]byte, error) { return append(dst, s...), nil }
func (textCodec) Decode(src []byte) (string, error)           { return string(src), nil }
