package transport

import (
	"fmt"
	"math"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

// detachBelow is the length below which a payload or delta gets memory of its own. A payload that stays in the chunk in which it was read
// keeps the whole chunk in memory, 32 times its own length at most; what a slow consumer has queued does not grow without
// bound through its fast neighbours. Full batches are several times as long and are never copied.
const detachBelow = maxChunk / 32

const framesAtOnce = 64 // for so many room is made before they are here

// assembler makes messages of frames.
type assembler struct {
	limits Limits
	detach bool // payloads are parts of chunks: see detachBelow
	kept   bool // it holds on to some frame that it was given

	m       *Message // under way; nil between messages
	delta   uint64   // bytes of delta that are to come
	frames  int      // batches that are to come
	started int      // frames of the wire that m has taken
	bytes   uint64   // and their bytes
}

// add takes the next frame and gives the message that it completes, if any.
func (a *assembler) add(kind byte, body []byte) (*Message, error) {
	var err error
	switch {
	case kind == kindHead && a.m == nil:
		a.m, a.started, a.bytes = &Message{}, 0, 0
		err = a.head(body)
	case kind == kindDelta && a.delta > 0:
		err = a.deltaBytes(body)
	case kind == kindBatch && a.m != nil && a.delta == 0 && a.frames > 0:
		err = a.batch(body)
	default:
		err = fmt.Errorf("%w: frame of kind %d within a message: %v", ErrCorrupt, kind, a.m != nil)
	}
	if err != nil {
		return nil, err
	}
	a.started++
	a.bytes += uint64(frameHeader + len(body))
	if a.bytes > maxMessage {
		return nil, fmt.Errorf("%w: a message of more than %d bytes", ErrCorrupt, uint64(maxMessage))
	}
	if a.delta > 0 || a.frames > 0 {
		return nil, nil
	}
	m := a.m
	a.m = nil
	return m, nil
}

func (a *assembler) head(body []byte) error {
	d := decoder{p: body}
	m := a.m
	m.From, m.Generation = determinant.WorkerID(d.uvarint()), determinant.Generation(d.uvarint())
	a.have(&d)
	a.subscriptions(&d)
	a.credits(&d)
	a.delta = d.below(maxDelta + 1)
	a.frames = int(d.below(maxFrames + 1))
	if a.frames > 0 {
		m.Frames = make([]Frame, 0, min(a.frames, framesAtOnce))
	}
	if d.bad || uint64(len(d.p)) > a.delta {
		return fmt.Errorf("%w: head of a message", ErrCorrupt)
	}
	if a.delta == 0 {
		return nil
	}
	return a.deltaBytes(d.p)
}

func (a *assembler) have(d *decoder) {
	n := d.below(uint64(a.limits.Tasks) + 2)
	if n == 0 || n-1 > uint64(len(d.p)) {
		d.bad = d.bad || n > 0
		return
	}
	a.m.Have = make([]determinant.LogOffset, n-1)
	for i := range a.m.Have {
		a.m.Have[i] = determinant.LogOffset(d.uvarint())
	}
}

func (a *assembler) subscriptions(d *decoder) {
	n := d.count(minSubscription)
	if n == 0 {
		return
	}
	a.m.Subscriptions = make([]Subscription, n)
	for i := range a.m.Subscriptions {
		s := &a.m.Subscriptions[i]
		s.Channel, s.Number = a.channel(d), d.uvarint()
		s.Producer, s.Consumer = determinant.Incarnation(d.uvarint()), determinant.Incarnation(d.uvarint())
		flags := d.byte()
		d.bad = d.bad || flags > flagAdopt
		s.Adopt = flags == flagAdopt
		s.Cursor = determinant.Cursor{Next: determinant.Seq(d.uvarint()), Epoch: determinant.Epoch(d.uvarint()), Bytes: d.uvarint(), CRC: d.uint32()}
	}
}

func (a *assembler) credits(d *decoder) {
	n := d.count(minCredit)
	if n == 0 {
		return
	}
	a.m.Credits = make([]Credit, n)
	for i := range a.m.Credits {
		c := &a.m.Credits[i]
		c.Channel, c.Number = a.channel(d), d.uvarint()
		c.Consumer, c.Taken = determinant.Incarnation(d.uvarint()), determinant.Seq(d.uvarint())
	}
}

func (a *assembler) channel(d *decoder) determinant.ChannelID {
	return determinant.ChannelID(d.below(min(uint64(a.limits.Channels), math.MaxUint32+1)))
}

// deltaBytes takes a piece of the delta. One that comes in one piece stays where it is.
func (a *assembler) deltaBytes(p []byte) error {
	if uint64(len(p)) > a.delta || len(p) == 0 {
		return fmt.Errorf("%w: %d bytes of delta, %d to come", ErrCorrupt, len(p), a.delta)
	}
	a.delta -= uint64(len(p))
	if len(a.m.Delta) == 0 {
		a.m.Delta = a.own(p) // of full capacity: appending copies
		return nil
	}
	a.m.Delta = append(a.m.Delta, p...)
	return nil
}

// own gives bytes that may be kept: those of the frame, or a copy if they are few.
func (a *assembler) own(p []byte) []byte {
	if a.detach && len(p) < detachBelow {
		return append(make([]byte, 0, len(p)), p...)
	}
	a.kept = true
	return p
}

func (a *assembler) batch(body []byte) error {
	d := decoder{p: body}
	f := Frame{Channel: a.channel(&d), Number: d.uvarint()}
	f.Producer, f.Consumer = determinant.Incarnation(d.uvarint()), determinant.Incarnation(d.uvarint())
	flags := d.byte()
	b := &inflightlog.Batch{First: determinant.Seq(d.uvarint()), Count: uint32(d.below(math.MaxUint32)), Epoch: determinant.Epoch(d.uvarint())}
	b.Control = flags&flagControl != 0
	endsEpoch := flags&flagEndsEpoch != 0
	b.Start.Bytes, b.Start.CRC = d.uvarint(), d.uint32()
	crc := uint32(0)
	if !endsEpoch {
		crc = d.uint32()
	}
	b.Payload = d.p
	b.Start = startOf(b)
	b.End = endOf(b, endsEpoch, crc)
	if d.bad || flags&^(flagControl|flagEndsEpoch) != 0 || !consistent(b) {
		return fmt.Errorf("%w: batch of channel %d", ErrCorrupt, f.Channel)
	}
	b.Payload = a.own(b.Payload)
	f.Batch = b
	a.m.Frames = append(a.m.Frames, f)
	a.frames--
	return nil
}
