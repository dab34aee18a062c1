package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tape is a connection that reads what was recorded, in lumps, and records what is written.
type tape struct {
	net.Conn
	bytes.Buffer
	lump func() int
}

func (r *tape) Read(p []byte) (int, error) {
	if r.lump != nil {
		p = p[:min(len(p), r.lump())]
	}
	return r.Buffer.Read(p)
}
func (r *tape) Write(p []byte) (int, error) { return r.Buffer.Write(p) }
func (r *tape) Close() error                { return nil }

type testFrame struct {
	kind byte
	body []byte
}

// drawFrames draws frames to be read in lumps of that size.
func drawFrames(t *rapid.T, lump int) []testFrame {
	lengths := []int{0, 1, 100, tinyPart, tinyPart + 1, 5000, firstChunk, 40 << 10, maxChunk, growBelow + 100}
	if lump < 1000 {
		lengths = lengths[:7]
	}
	frames := make([]testFrame, rapid.IntRange(1, 30).Draw(t, "frames"))
	for i := range frames {
		n := rapid.SampledFrom(lengths).Draw(t, "length")
		frames[i] = testFrame{byte(i), bytes.Repeat([]byte{byte(i + 1)}, n)}
	}
	return frames
}

// However the bytes come, the same frames come out; and what was kept is never overwritten.
func TestFramesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lump := rapid.SampledFrom([]int{1, 7, 1000, 100_000, 1 << 30}).Draw(t, "lump")
		frames := drawFrames(t, lump)
		r := &tape{lump: func() int { return lump }}
		c := newConn(r)
		for _, f := range frames {
			cut := rapid.IntRange(0, len(f.body)).Draw(t, "cut")
			require.NoError(t, c.Queue(f.kind, f.body[:cut], f.body[cut:]))
			if rapid.Bool().Draw(t, "flush") {
				require.NoError(t, c.Flush())
			}
		}
		require.NoError(t, c.Flush())
		require.Zero(t, c.Queued())
		kept := map[int][]byte{}
		for i, f := range frames {
			read := c.Read
			keep := rapid.Bool().Draw(t, "keep")
			if keep {
				read = c.ReadKept
			}
			kind, body, err := read()
			require.NoError(t, err)
			require.Equal(t, f.kind, kind)
			require.True(t, bytes.Equal(f.body, body))
			if keep {
				kept[i] = body
			}
		}
		for i, body := range kept {
			require.True(t, bytes.Equal(frames[i].body, body), "frame %d was overwritten", i)
		}
		_, _, err := c.Read()
		require.Equal(t, io.EOF, err)
	})
}

func TestCutFrameIsUnexpectedEnd(t *testing.T) {
	var whole tape
	require.NoError(t, newConn(&whole).Write(7, []byte("some bytes")))
	for n := 1; n < whole.Len(); n++ {
		var cut tape
		cut.Buffer.Write(whole.Bytes()[:n])
		_, _, err := newConn(&cut).Read()
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "after %d bytes", n)
	}
}

func TestDamagedFrameIsCorrupt(t *testing.T) {
	var whole tape
	require.NoError(t, newConn(&whole).Write(7, []byte("some bytes")))
	for n := range whole.Len() {
		var damaged tape
		damaged.Buffer.Write(whole.Bytes())
		damaged.Bytes()[n] ^= 0x10
		_, _, err := newConn(&damaged).Read()
		require.ErrorIs(t, err, ErrCorrupt, "byte %d", n)
	}
}

func TestFrameThatIsTooLong(t *testing.T) {
	c := newConn(&tape{})
	part := make([]byte, MaxFrame/2+1)
	require.ErrorIs(t, c.Queue(1, part, part), ErrTooLong)
	require.Zero(t, c.Queued())
	var long tape
	h := make([]byte, frameHeader)
	putHeader(h, 1, MaxFrame+1, 0)
	long.Buffer.Write(h)
	_, _, err := newConn(&long).Read()
	require.ErrorIs(t, err, ErrCorrupt)
}

// Whoever only claims that a long frame comes does not get the memory for it.
func TestMemoryFollowsBytes(t *testing.T) {
	h := make([]byte, frameHeader)
	putHeader(h, 1, MaxFrame, 0)
	r := &tape{}
	r.Buffer.Write(h)
	r.Buffer.Write(make([]byte, 3<<20))
	c := newConn(r)
	_, _, err := c.Read()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.LessOrEqual(t, cap(c.in.buf), 8<<20)
}

func TestLongFrameIsNotHeldOnTo(t *testing.T) {
	r := &tape{}
	c := newConn(r)
	require.NoError(t, c.Write(1, make([]byte, 10<<20)))
	require.NoError(t, c.Write(2, make([]byte, 10)))
	for range 2 {
		_, _, err := c.Read()
		require.NoError(t, err)
	}
	_, _, err := c.Read()
	require.Equal(t, io.EOF, err)
	require.LessOrEqual(t, cap(c.in.buf), maxChunk)
	require.LessOrEqual(t, cap(c.out.arena), keptArena)
	for _, p := range c.out.bufs[:cap(c.out.bufs)] {
		require.Nil(t, p, "what was sent is still referred to")
	}
}

func TestRawHasWhatWasReadAhead(t *testing.T) {
	a, b := loopbackPair(t)
	w, r := newConn(a), newConn(b)
	require.NoError(t, w.Write(1, []byte("frame")))
	_, err := a.Write([]byte("other protocol"))
	require.NoError(t, err)
	_, body, err := r.Read()
	require.NoError(t, err)
	require.Equal(t, "frame", string(body))
	raw := r.Raw()
	require.NoError(t, r.Close(), "a connection that is raw is not ours to close")
	require.NoError(t, a.Close())
	rest, err := io.ReadAll(raw)
	require.NoError(t, err)
	require.Equal(t, "other protocol", string(rest))
	require.NoError(t, raw.Close())
}

// deaf is a connection on which nothing comes, except for what is put into come before a read that would time out.
type deaf struct {
	tape
	timeouts int
	come     map[int]string // by timeout
}

func (d *deaf) SetReadDeadline(time.Time) error { return nil }

func (d *deaf) Read(p []byte) (int, error) {
	if d.Len() == 0 {
		d.timeouts++
		d.Buffer.WriteString(d.come[d.timeouts])
		return 0, os.ErrDeadlineExceeded
	}
	return d.Buffer.Read(p)
}

func TestSilence(t *testing.T) {
	c := newConn(&deaf{})
	c.silence = time.Second
	_, _, err := c.Read()
	require.ErrorIs(t, err, ErrSilent)

	// A process that was stopped finds its deadline over and the bytes there.
	frame := string(wireFrame(nil, 3, []byte("x")))
	c = newConn(&deaf{come: map[int]string{1: frame[:5], 2: frame[5:]}})
	c.silence = time.Second
	kind, body, err := c.Read()
	require.NoError(t, err)
	require.Equal(t, byte(3), kind)
	require.Equal(t, "x", string(body))
}

func TestErrorsOfConnectionsComeThrough(t *testing.T) {
	a, b := loopbackPair(t)
	w, r := newConn(a), newConn(b)
	require.NoError(t, r.SetReadDeadline(time.Now().Add(-time.Second)))
	_, _, err := r.Read()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, w.SetWriteDeadline(time.Now().Add(-time.Second)))
	require.ErrorIs(t, w.Write(1, []byte("x")), os.ErrDeadlineExceeded)
	require.NoError(t, w.Close())
	require.True(t, errors.Is(w.Write(1, []byte("x")), net.ErrClosed))
	require.Equal(t, a.LocalAddr(), r.RemoteAddr())
}
