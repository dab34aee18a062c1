package inflightlog

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

var elements = []struct {
	element Element
	bytes   string
}{
	{Element{Kind: Record, Payload: []byte{}}, "\x01\x00"},
	{Element{Kind: Record, Payload: []byte("abc")}, "\x01\x03abc"},
	{Element{Kind: Record, HasTime: true, Time: 258, Payload: []byte("x")}, "\x09\x02\x01\x00\x00\x00\x00\x00\x00\x01x"},
	{Element{Kind: Record, HasTime: true, Time: math.MinInt64, Payload: []byte("")}, "\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00"},
	{Element{Kind: Watermark, Time: 0}, "\x02\x00"},
	{Element{Kind: Watermark, Time: -1}, "\x02\x01"},
	{Element{Kind: Watermark, Time: 64}, "\x02\x80\x01"},
	{Element{Kind: Watermark, Time: math.MaxInt64}, "\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
	{Element{Kind: Watermark, Time: math.MinInt64}, "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
	{Element{Kind: Barrier, Epoch: 1, Mode: determinant.GlobalRollback, Depth: 2}, "\x03\x01\x02\x02"},
	{Element{Kind: Skip, Epoch: 300, Depth: determinant.Full}, "\x04\xac\x02\x00\xff\xff\x03"},
	{Element{Kind: Idle}, "\x05"},
	{Element{Kind: Active}, "\x06"},
	{Element{Kind: End}, "\x07"},
}

// encode is the inverse of Decode.
func encode(e Element) []byte {
	if e.Kind == Record {
		return AppendRecord(nil, e.Time, e.HasTime, e.Payload)
	}
	return AppendControl(nil, e)
}

func TestElementBytes(t *testing.T) {
	for _, c := range elements {
		require.Equal(t, []byte(c.bytes), encode(c.element), "%+v", c.element)
		got := Element{Kind: 7, HasTime: true, Time: 5, Epoch: 5, Mode: 1, Depth: 5, Payload: []byte("old")}
		n, err := Decode(append([]byte(c.bytes), 0xff, 0xff), &got)
		require.NoError(t, err)
		require.Equal(t, len(c.bytes), n)
		require.Equal(t, c.element, got)
		for cut := range c.bytes {
			_, err := Decode([]byte(c.bytes[:cut]), &got)
			require.ErrorIs(t, err, ErrCorrupt, "%v cut at %d", c.element.Kind, cut)
		}
	}
}

func TestElementRefusesWhatNoEncoderWrites(t *testing.T) {
	for name, src := range map[string]string{
		"kind 0":                   "\x00",
		"time flag on a watermark": "\x0a\x00",
		"high bits":                "\x11\x00",
		"long form of a length":    "\x01\x80\x00",
		"length beyond the end":    "\x01\x02a",
		"enormous length":          "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"varint of eleven bytes":   "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"varint beyond 64 bits":    "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
		"unknown mode":             "\x03\x01\x04\x00",
		"depth beyond 16 bits":     "\x03\x01\x00\x80\x80\x04",
	} {
		var e Element
		_, err := Decode([]byte(src), &e)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
	require.Panics(t, func() { AppendControl(nil, Element{Kind: Record}) })
}

func TestElementPayloadCannotGrowIntoItsNeighbour(t *testing.T) {
	src := AppendRecord(AppendRecord(nil, 0, false, []byte("one")), 0, false, []byte("two"))
	var e Element
	_, err := Decode(src, &e)
	require.NoError(t, err)
	require.Equal(t, len(e.Payload), cap(e.Payload))
}

func FuzzDecode(f *testing.F) {
	for _, c := range elements {
		f.Add([]byte(c.bytes))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var e Element
		n, err := Decode(src, &e)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		if again := encode(e); !bytes.Equal(again, src[:n]) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", src[:n], e, again)
		}
	})
}

func FuzzDecodeFrame(f *testing.F) {
	l := NewLog(Origin, Options{Retain: true, OnSeal: func(_ *Log, b *Batch) { f.Add(appendFrame(nil, b, b.Payload)) }})
	l.Record(1, true, []byte("record"))
	l.Commit()
	l.Seal()
	l.Control(Element{Kind: Barrier, Epoch: 1})
	l.Control(Element{Kind: End})
	f.Fuzz(func(t *testing.T, src []byte) {
		b, wrong := decodeFrame(src)
		if wrong != "" {
			return
		}
		if again := appendFrame(nil, &b, b.Payload); !bytes.Equal(again, src) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", src, b, again)
		}
	})
}
