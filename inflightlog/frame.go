package inflightlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/understudy-stream/understudy/determinant"
)

// A frame is one batch in a segment file; docs/format/spill.md shows it. All numbers are little endian.
const (
	frameCRC       = 0  // uint32: CRC-32C of everything after it
	frameCount     = 4  // uint32: elements
	frameLength    = 8  // uint64: bytes of payload
	frameFirst     = 16 // uint64: sequence number of the first element
	frameEpoch     = 24 // uint64
	frameBytes     = 32 // uint64: bytes of the epoch before the batch
	frameStartCRC  = 40 // uint32: checksum of the epoch before the batch
	frameEndCRC    = 44 // uint32: checksum of the epoch after the batch, 0 if the epoch ends
	frameFlags     = 48 // uint32: flagControl, flagEndsEpoch
	frameHeader    = 52
	flagControl    = 1
	flagEndsEpoch  = 2
	flagsThatExist = flagControl | flagEndsEpoch
)

// appendFrame appends a batch whose payload is given in parts.
func appendFrame(dst []byte, b *Batch, payload ...[]byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, frameHeader)...)
	length := 0
	for _, p := range payload {
		dst = append(dst, p...)
		length += len(p)
	}
	f := dst[at:]
	flags := uint32(0)
	if b.Control {
		flags |= flagControl
	}
	if b.End.Epoch != b.Epoch {
		flags |= flagEndsEpoch
	}
	binary.LittleEndian.PutUint32(f[frameCount:], b.Count)
	binary.LittleEndian.PutUint64(f[frameLength:], uint64(length))
	binary.LittleEndian.PutUint64(f[frameFirst:], uint64(b.First))
	binary.LittleEndian.PutUint64(f[frameEpoch:], uint64(b.Epoch))
	binary.LittleEndian.PutUint64(f[frameBytes:], b.Start.Bytes)
	binary.LittleEndian.PutUint32(f[frameStartCRC:], b.Start.CRC)
	binary.LittleEndian.PutUint32(f[frameEndCRC:], b.End.CRC)
	binary.LittleEndian.PutUint32(f[frameFlags:], flags)
	binary.LittleEndian.PutUint32(f[frameCRC:], crc32.Checksum(f[frameCount:], castagnoli))
	return dst
}

// decodeFrame reads a batch from exactly the bytes of its frame. The payload aliases them. It says what is wrong in words;
// the caller knows file and offset.
func decodeFrame(f []byte) (b Batch, wrong string) {
	if len(f) < frameHeader {
		return b, fmt.Sprintf("%d bytes are too few for a header", len(f))
	}
	if got, want := crc32.Checksum(f[frameCount:], castagnoli), binary.LittleEndian.Uint32(f[frameCRC:]); got != want {
		return b, fmt.Sprintf("checksum %08x, header says %08x", got, want)
	}
	if length := binary.LittleEndian.Uint64(f[frameLength:]); length != uint64(len(f)-frameHeader) {
		return b, fmt.Sprintf("%d bytes of payload, header says %d", len(f)-frameHeader, length)
	}
	flags := binary.LittleEndian.Uint32(f[frameFlags:])
	b.Count = binary.LittleEndian.Uint32(f[frameCount:])
	b.First = determinant.Seq(binary.LittleEndian.Uint64(f[frameFirst:]))
	b.Epoch = determinant.Epoch(binary.LittleEndian.Uint64(f[frameEpoch:]))
	b.Payload = f[frameHeader:len(f):len(f)]
	b.Control = flags&flagControl != 0
	b.Start = determinant.Cursor{
		Next:  b.First,
		Epoch: b.Epoch,
		Bytes: binary.LittleEndian.Uint64(f[frameBytes:]),
		CRC:   binary.LittleEndian.Uint32(f[frameStartCRC:]),
	}
	b.End = determinant.Cursor{
		Next:  b.First + determinant.Seq(b.Count),
		Epoch: b.Epoch,
		Bytes: b.Start.Bytes + uint64(len(b.Payload)),
		CRC:   binary.LittleEndian.Uint32(f[frameEndCRC:]),
	}
	if flags&flagEndsEpoch != 0 {
		b.End.Epoch++
		b.End.Bytes = 0
	}
	if flags&^flagsThatExist != 0 || flags == flagEndsEpoch || b.End.Epoch != b.Epoch && b.End.CRC != 0 {
		return b, fmt.Sprintf("flags %#x with checksum %08x", flags, b.End.CRC)
	}
	return b, ""
}
