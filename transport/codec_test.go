package transport

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

var testLimits = Limits{Tasks: 5, Channels: 9}

func number[T ~uint64](t *rapid.T, name string) T {
	return T(rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64()).Draw(t, name))
}

func drawChannel(t *rapid.T) determinant.ChannelID {
	return determinant.ChannelID(rapid.IntRange(0, testLimits.Channels-1).Draw(t, "channel"))
}

func drawCursor(t *rapid.T) determinant.Cursor {
	return determinant.Cursor{
		Next: number[determinant.Seq](t, "next"), Epoch: number[determinant.Epoch](t, "epoch"), Bytes: number[uint64](t, "bytes"),
		CRC: rapid.Uint32().Draw(t, "crc"),
	}
}

// drawBatch makes a batch that continues some cursor, of bytes that are not elements: nothing here looks into them.
func drawBatch(t *rapid.T) *inflightlog.Batch {
	b := &inflightlog.Batch{Start: drawCursor(t), Payload: bytes.Repeat([]byte{byte(rapid.IntRange(0, 255).Draw(t, "byte"))}, rapid.IntRange(1, 2000).Draw(t, "length"))}
	b.First, b.Epoch = b.Start.Next, b.Start.Epoch
	b.Count = uint32(rapid.IntRange(1, len(b.Payload)).Draw(t, "count"))
	b.Control = rapid.Bool().Draw(t, "control")
	b.End = determinant.Cursor{Next: b.First + determinant.Seq(b.Count), Epoch: b.Epoch + 1}
	if !b.Control || rapid.Bool().Draw(t, "end of stream") {
		b.End.Epoch, b.End.Bytes = b.Epoch, b.Start.Bytes+uint64(len(b.Payload))
		b.End.CRC = crc32.Update(b.Start.CRC, castagnoli, b.Payload)
	}
	return b
}

func drawMessage(t *rapid.T) *Message {
	m := &Message{From: number[determinant.WorkerID](t, "from"), Generation: number[determinant.Generation](t, "generation")}
	if rapid.Bool().Draw(t, "says what it has") {
		m.Have = make([]determinant.LogOffset, rapid.IntRange(0, testLimits.Tasks).Draw(t, "tasks"))
		for i := range m.Have {
			m.Have[i] = number[determinant.LogOffset](t, "have")
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "subscriptions") {
		m.Subscriptions = append(m.Subscriptions, Subscription{
			Channel: drawChannel(t), Number: number[uint64](t, "number"), Producer: number[determinant.Incarnation](t, "producer"),
			Consumer: number[determinant.Incarnation](t, "consumer"), Cursor: drawCursor(t), Adopt: rapid.Bool().Draw(t, "adopt"),
		})
	}
	for range rapid.IntRange(0, 3).Draw(t, "credits") {
		m.Credits = append(m.Credits, Credit{
			Channel: drawChannel(t), Number: number[uint64](t, "number"), Consumer: number[determinant.Incarnation](t, "consumer"),
			Taken: number[determinant.Seq](t, "taken"),
		})
	}
	if n := rapid.SampledFrom([]int{0, 1, 100, deltaPiece, deltaPiece + 1, 3 * deltaPiece}).Draw(t, "delta"); n > 0 {
		m.Delta = bytes.Repeat([]byte{0xd1, 7}, n/2+1)[:n]
	}
	for range rapid.IntRange(0, 4).Draw(t, "frames") {
		m.Frames = append(m.Frames, Frame{
			Channel: drawChannel(t), Number: number[uint64](t, "number"), Producer: number[determinant.Incarnation](t, "producer"),
			Consumer: number[determinant.Incarnation](t, "consumer"), Batch: drawBatch(t),
		})
	}
	return m
}

func TestMessageComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wire []byte
		var sent []*Message
		for range rapid.IntRange(1, 3).Draw(t, "messages") {
			m := drawMessage(t)
			sent = append(sent, m)
			var err error
			wire, err = AppendMessage(wire, m)
			require.NoError(t, err)
		}
		for _, m := range sent {
			var got *Message
			var err error
			got, wire, err = DecodeMessage(wire, testLimits)
			require.NoError(t, err)
			require.Equal(t, m, got)
			for i := range got.Frames {
				b := m.Frames[i].Batch
				err := got.Frames[i].Batch.Check(got.Frames[i].Channel, b.Start)
				require.Equal(t, b.Check(m.Frames[i].Channel, b.Start), err)
			}
		}
		require.Empty(t, wire)
	})
}

// What is on the wire must not change without a new wireVersion.
func TestMessageFormatIsFrozen(t *testing.T) {
	payload := []byte("\x01\x03abc\x03\x01\x00\x00")
	m := &Message{
		From: 2, Generation: 1, Have: []determinant.LogOffset{0, 300},
		Subscriptions: []Subscription{{Channel: 3, Number: 4, Producer: 5, Consumer: 6, Cursor: determinant.Cursor{Next: 7, Epoch: 8, Bytes: 9, CRC: 0x0a0b0c0d}, Adopt: true}},
		Credits:       []Credit{{Channel: 1, Number: 2, Consumer: 3, Taken: 200}},
		Delta:         []byte("delta"),
		Frames: []Frame{
			{Channel: 1, Number: 2, Producer: 3, Consumer: 4, Batch: &inflightlog.Batch{
				First: 130, Count: 1, Epoch: 2, Payload: payload[:5],
				Start: determinant.Cursor{Next: 130, Epoch: 2, Bytes: 10, CRC: 0x01020304}, End: determinant.Cursor{Next: 131, Epoch: 2, Bytes: 15, CRC: 0x05060708},
			}},
			{Channel: 1, Number: 2, Producer: 3, Consumer: 4, Batch: &inflightlog.Batch{
				First: 131, Count: 2, Epoch: 2, Payload: payload, Control: true,
				Start: determinant.Cursor{Next: 131, Epoch: 2, Bytes: 15, CRC: 0x05060708}, End: determinant.Cursor{Next: 133, Epoch: 3},
			}},
		},
	}
	wire, err := AppendMessage(nil, m)
	require.NoError(t, err)
	require.Equal(t, strings.Join(strings.Fields(`
		20000000 01 6140b1 cbfbff4e
		02 01 03 00 ac02
		01 03 04 05 06 01 07 08 09 0d0c0b0a
		01 01 02 03 c801
		05 02 64656c7461
		17000000 03 56ea76 7c69b384
		01 02 03 04 00 8201 01 02 0a 04030201 08070605 0103616263
		17000000 03 56ea76 1ab0a032
		01 02 03 04 03 8301 02 02 0f 08070605 0103616263 03010000`), ""), hex.EncodeToString(wire))
	got, rest, err := DecodeMessage(wire, testLimits)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.Equal(t, m, got)
}

func TestMessageOfEngineIsSmall(t *testing.T) {
	wire, err := AppendMessage(nil, &Message{From: 3, Credits: []Credit{{Channel: 1, Number: 1, Consumer: 1, Taken: 1000}}})
	require.NoError(t, err)
	require.Less(t, len(wire), 32)
}

// Every cut and every changed byte of a message is noticed.
func TestDamagedMessageIsCorrupt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wire, err := AppendMessage(nil, drawMessage(t))
		require.NoError(t, err)
		at := rapid.IntRange(0, len(wire)-1).Draw(t, "at")
		_, _, err = DecodeMessage(wire[:at], testLimits)
		require.ErrorIs(t, err, ErrCorrupt)
		wire[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		_, _, err = DecodeMessage(wire, testLimits)
		require.ErrorIs(t, err, ErrCorrupt)
	})
}

func TestBatchThatContradictsItselfIsNotSent(t *testing.T) {
	for name, spoil := range map[string]func(b *inflightlog.Batch){
		"first":             func(b *inflightlog.Batch) { b.First++ },
		"count":             func(b *inflightlog.Batch) { b.Count++ },
		"no elements":       func(b *inflightlog.Batch) { b.Count, b.End.Next = 0, b.First },
		"more elements":     func(b *inflightlog.Batch) { b.Count, b.End.Next = 101, b.First+101 },
		"epoch":             func(b *inflightlog.Batch) { b.Epoch++ },
		"length":            func(b *inflightlog.Batch) { b.Payload = b.Payload[1:] },
		"end of epoch":      func(b *inflightlog.Batch) { b.End.Epoch++ },
		"end without a bit": func(b *inflightlog.Batch) { b.End = determinant.Cursor{Next: b.End.Next, Epoch: b.Epoch + 1} },
	} {
		b := *batchOf(100)
		spoil(&b)
		_, err := AppendMessage(nil, &Message{Frames: []Frame{{Batch: &b}}})
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
}

// wireFrame frames a body, right or wrong.
func wireFrame(dst []byte, kind byte, body []byte) []byte {
	var v vector
	if err := v.add(kind, body); err != nil {
		panic(err)
	}
	for _, p := range v.bufs {
		dst = append(dst, p...)
	}
	return dst
}

func TestDecoderHasLimits(t *testing.T) {
	head := func(mid string) string { return "\x01\x00" + mid }
	huge := string(binary.AppendUvarint(nil, 1<<60))
	batch := "\x01\x00\x00\x00" + "\x00" + "\x00\x01\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "x"
	for name, frames := range map[string][]string{
		"have of too many tasks":      {head("\x07" + "\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00")},
		"have of a huge count":        {head(huge)},
		"have beyond the bytes":       {head("\x03\x00")},
		"subscriptions beyond":        {head("\x00" + huge)},
		"credits beyond":              {head("\x00\x00" + huge)},
		"credit of unknown channel":   {head("\x00\x00\x01" + "\x09\x00\x00\x00" + "\x00\x00")},
		"huge delta":                  {head("\x00\x00\x00" + huge + "\x00x")},
		"more delta than it says":     {head("\x00\x00\x00" + "\x01\x00xy")},
		"delta that does not begin":   {head("\x00\x00\x00" + "\x01\x00")},
		"too many frames":             {head("\x00\x00\x00\x00" + string(binary.AppendUvarint(nil, maxFrames+1)))},
		"long varint":                 {"\x81\x00\x00\x00\x00\x00\x00\x00"},
		"no head":                     {""},
		"unknown channel of a batch":  {head("\x00\x00\x00\x00\x01"), "\x02\x09" + batch[1:]},
		"batch without a payload":     {head("\x00\x00\x00\x00\x01"), "\x02" + batch[:len(batch)-1]},
		"batch of unknown flags":      {head("\x00\x00\x00\x00\x01"), "\x02" + batch[:4] + "\x04" + batch[5:]},
		"batch with too many":         {head("\x00\x00\x00\x00\x01"), "\x02" + batch[:6] + "\x02" + batch[7:]},
		"batch ends the epoch, alone": {head("\x00\x00\x00\x00\x01"), "\x02" + batch[:4] + "\x02" + batch[5:]},
	} {
		var wire []byte
		for i, f := range frames {
			kind := byte(kindHead)
			if i > 0 {
				kind, f = kindBatch, f[1:]
			}
			wire = wireFrame(wire, kind, []byte(f))
		}
		m, _, err := DecodeMessage(wire, testLimits)
		require.ErrorIs(t, err, ErrCorrupt, name)
		require.Nil(t, m)
	}
	wire := wireFrame(wireFrame(nil, kindHead, []byte(head("\x00\x00\x00\x00\x01"))), kindBatch, []byte(batch))
	_, _, err := DecodeMessage(wire, testLimits)
	require.NoError(t, err, "the table spoils something that is whole")
}

func TestFramesOutOfOrderAreCorrupt(t *testing.T) {
	b := drawnMessage(t)
	wire, err := AppendMessage(nil, b)
	require.NoError(t, err)
	var frames [][]byte
	for rest := wire; len(rest) > 0; {
		_, body, next, err := nextFrame(rest)
		require.NoError(t, err)
		frames = append(frames, rest[:frameHeader+len(body)])
		rest = next
	}
	require.Len(t, frames, 4) // head, delta, two batches
	for _, order := range [][]int{{1}, {2}, {0, 2}, {0, 1, 1}, {0, 0}, {0, 1, 2, 0}, {0, 1, 2, 1}} {
		var wrong []byte
		for _, i := range order {
			wrong = append(wrong, frames[i]...)
		}
		_, _, err := DecodeMessage(wrong, testLimits)
		require.ErrorIs(t, err, ErrCorrupt, "%v", order)
	}
}

// drawnMessage is a message with a delta in two frames and two batches.
func drawnMessage(testing.TB) *Message {
	return &Message{From: 1, Delta: make([]byte, deltaPiece+10), Frames: []Frame{{Batch: batchOf(10)}, {Batch: batchOf(20)}}}
}

// FuzzDecodeMessage decodes frames whose checksums are right and whose bodies are anybody's: kind, length, body.
func FuzzDecodeMessage(f *testing.F) {
	wire, err := AppendMessage(nil, drawnMessage(f))
	require.NoError(f, err)
	seed := []byte{}
	for rest := wire; len(rest) > 0; {
		var kind byte
		var body []byte
		kind, body, rest, err = nextFrame(rest)
		require.NoError(f, err)
		seed = append(binary.LittleEndian.AppendUint16(append(seed, kind), uint16(min(len(body), 50))), body[:min(len(body), 50)]...)
	}
	f.Add(seed)
	f.Add([]byte("\x01\x0b\x00\x01\x00\x02\x80\x01\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var wire []byte
		for len(in) >= 3 {
			n := min(int(binary.LittleEndian.Uint16(in[1:])), len(in)-3)
			wire = wireFrame(wire, in[0], in[3:3+n])
			in = in[3+n:]
		}
		m, rest, err := DecodeMessage(wire, testLimits)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		again, err := AppendMessage(nil, m)
		require.NoError(t, err)
		require.LessOrEqual(t, len(rest), len(wire)-frameHeader)
		m2, rest, err := DecodeMessage(again, testLimits)
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Equal(t, m, m2)
	})
}

// FuzzFrames decodes anything.
func FuzzFrames(f *testing.F) {
	wire, err := AppendMessage(nil, drawnMessage(f))
	require.NoError(f, err)
	f.Add(wire)
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, _, err := DecodeMessage(in, testLimits); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		}
	})
}
