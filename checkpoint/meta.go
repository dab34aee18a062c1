package checkpoint

import (
	"encoding/binary"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// Meta is what a task's image says about the task itself, at barrier Epoch.
type Meta struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation // the life of the task that took the snapshot
	Epoch       determinant.Epoch       // the checkpoint: the image is the state at barrier Epoch
	// Base is the committed checkpoint that the entries are relative to. A full image needs none; its Base says nothing.
	Base determinant.Epoch
	// Since says that the images of the checkpoints after Since, this one included, have all of the state: what had not changed was written again.
	// So what is older is not needed any more. 0 says nothing.
	Since determinant.Epoch
	// State says that the task writes again, bit by bit, what did not change for long, to be able to say Since, so that a store need not merge its images
	// for their size; and how many bytes an image of all of the state would have, about. 0: it does not.
	State uint64
	// Mode and Depth belong to epoch Epoch+1: barrier Epoch carried them. A task restored from the image starts with them.
	Mode  determinant.Mode
	Depth determinant.Depth

	Log       determinant.LogOffset // where epoch Epoch+1 starts in the task's determinant log
	Time      int64                 // latest processing time of the task, in milliseconds since the Unix epoch
	Watermark int64                 // the task's own watermark, in milliseconds
	Ended     bool                  // the task has nothing left to do but to forward barriers
	Records   uint64                // records taken since the job's start

	Inputs          []determinant.Cursor // per input channel: the next element that it expects
	InputWatermarks []int64              // per input channel
	InputIdle       []bool               // per input channel
	InputEnded      []bool               // per input channel
	// Outputs holds the position of each output channel, and after them that of the task's external output, if any.
	Outputs []determinant.Cursor
}

// appendMeta appends the byte form of m: varints in field order, lists with their length in front. It is canonical, so
// equal Metas have equal bytes. docs/format/checkpoint-image.md has the diagram.
func appendMeta(dst []byte, m *Meta) []byte {
	dst = binary.AppendUvarint(dst, uint64(m.Task))
	dst = binary.AppendUvarint(dst, uint64(m.Incarnation))
	dst = binary.AppendUvarint(dst, uint64(m.Epoch))
	dst = binary.AppendUvarint(dst, uint64(m.Base))
	dst = binary.AppendUvarint(dst, uint64(m.Since))
	dst = binary.AppendUvarint(dst, m.State)
	dst = append(dst, byte(m.Mode))
	dst = binary.AppendUvarint(dst, uint64(m.Depth))
	dst = binary.AppendUvarint(dst, uint64(m.Log))
	dst = binary.AppendVarint(dst, m.Time)
	dst = binary.AppendVarint(dst, m.Watermark)
	dst = appendBool(dst, m.Ended)
	dst = binary.AppendUvarint(dst, m.Records)
	dst = appendCursors(dst, m.Inputs)
	dst = binary.AppendUvarint(dst, uint64(len(m.InputWatermarks)))
	for _, w := range m.InputWatermarks {
		dst = binary.AppendVarint(dst, w)
	}
	dst = appendBools(dst, m.InputIdle)
	dst = appendBools(dst, m.InputEnded)
	return appendCursors(dst, m.Outputs)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendBools(dst []byte, list []bool) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, b := range list {
		dst = appendBool(dst, b)
	}
	return dst
}

func appendCursors(dst []byte, list []determinant.Cursor) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, c := range list {
		dst = binary.AppendUvarint(dst, uint64(c.Next))
		dst = binary.AppendUvarint(dst, uint64(c.Epoch))
		dst = binary.AppendUvarint(dst, c.Bytes)
		dst = binary.LittleEndian.AppendUint32(dst, c.CRC)
	}
	return dst
}

// decodeMeta is the inverse of appendMeta. The whole of src is one Meta, in canonical form.
func decodeMeta(src []byte) (Meta, error) {
	r := reader{src: src}
	m := Meta{
		Task:        determinant.TaskID(r.uvarintMax(1<<32 - 1)),
		Incarnation: determinant.Incarnation(r.uvarint()),
		Epoch:       determinant.Epoch(r.uvarint()),
		Base:        determinant.Epoch(r.uvarint()),
		Since:       determinant.Epoch(r.uvarint()),
		State:       r.uvarint(),
		Mode:        determinant.Mode(r.byte()),
		Depth:       determinant.Depth(r.uvarintMax(1<<16 - 1)),
		Log:         determinant.LogOffset(r.uvarint()),
		Time:        r.varint(),
		Watermark:   r.varint(),
		Ended:       r.bool(),
		Records:     r.uvarint(),
		Inputs:      r.cursors(),
	}
	if n := r.count(1); n > 0 {
		m.InputWatermarks = make([]int64, n)
		for i := range m.InputWatermarks {
			m.InputWatermarks[i] = r.varint()
		}
	}
	m.InputIdle = r.bools()
	m.InputEnded = r.bools()
	m.Outputs = r.cursors()
	if m.Mode > determinant.None {
		r.fail("unknown mode")
	}
	if r.err == nil && len(r.src) > 0 {
		r.fail("bytes after the end")
	}
	if r.err != nil {
		return Meta{}, fmt.Errorf("%w: meta: %v", ErrCorrupt, r.err)
	}
	return m, nil
}
