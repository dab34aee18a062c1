package determinant

import (
	"bufio"
	"fmt"
	"io"
)

var kindNames = [...]string{
	KindNone: "none", KindInput: "input", KindSource: "source", KindTimers: "timers", KindCheckpoint: "checkpoint",
	KindSkipCheckpoint: "skip-checkpoint", KindAsync: "async", KindTime: "time", KindRandom: "random", KindCall: "call",
	KindSplit: "split", KindSkip: "skip", KindMark: "mark",
}

// String gives the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Header tells whether a determinant of this kind opens a step; the others are choices within one, or a mark.
func (k Kind) Header() bool {
	switch k {
	case KindInput, KindSource, KindTimers, KindCheckpoint, KindSkipCheckpoint, KindAsync, KindSplit:
		return true
	}
	return false
}

// printedBytes is how much of a result String shows.
const printedBytes = 48

// String gives the kind and the fields that count for it on one line, with a long result cut short.
func (d *Determinant) String() string {
	switch d.Kind {
	case KindInput:
		return fmt.Sprintf("input channel=%d n=%d", d.Channel, d.N)
	case KindSource:
		return fmt.Sprintf("source split=%d n=%d offset=%d", d.Split, d.N, d.Offset)
	case KindTimers, KindTime:
		return fmt.Sprintf("%v time=%d", d.Kind, d.Time)
	case KindCheckpoint, KindSkipCheckpoint:
		return fmt.Sprintf("%v epoch=%d mode=%v depth=%v", d.Kind, d.Epoch, d.Mode, d.Depth)
	case KindAsync:
		return fmt.Sprintf("async pending=%d hash=%016x %s", d.Pending, d.Hash, d.result())
	case KindCall:
		return fmt.Sprintf("call hash=%016x %s", d.Hash, d.result())
	case KindRandom:
		return fmt.Sprintf("random seed=%016x", d.Seed)
	case KindSplit:
		if d.Removed && d.Split == NoSplit {
			return "split none left"
		}
		if d.Removed {
			return fmt.Sprintf("split removed=%d", d.Split)
		}
		return fmt.Sprintf("split added=%d identity=%s", d.Split, cut(d.Bytes))
	case KindSkip:
		if d.Failed {
			return fmt.Sprintf("skip channel=%d seq=%d failed", d.Channel, d.Seq)
		}
		return fmt.Sprintf("skip channel=%d seq=%d", d.Channel, d.Seq)
	case KindMark:
		return fmt.Sprintf("mark epoch=%d", d.Epoch)
	}
	return d.Kind.String()
}

func (d *Determinant) result() string {
	if d.Failed {
		return "error=" + cut(d.Bytes)
	}
	return "result=" + cut(d.Bytes)
}

func cut(p []byte) string {
	if len(p) > printedBytes {
		return fmt.Sprintf("%q... (%d bytes)", p[:printedBytes], len(p))
	}
	return fmt.Sprintf("%q", p)
}

// Print writes one line per determinant of log, each with its offset. The log begins at base, which is an epoch's start. When
// the log is damaged Print writes what comes before the damage and returns an error with its offset.
func Print(w io.Writer, log []byte, base LogOffset) error {
	out := bufio.NewWriter(w)
	var dec Decoder
	var d Determinant
	for pos := 0; pos < len(log); {
		at := base + LogOffset(pos)
		n, err := dec.Next(log[pos:], &d)
		if err != nil {
			if flushErr := out.Flush(); flushErr != nil {
				return fmt.Errorf("determinant: print: %w", flushErr)
			}
			return fmt.Errorf("determinant: at offset %d: %w", at, err)
		}
		fmt.Fprintf(out, "%10d  %s\n", at, d.String())
		pos += n
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("determinant: print: %w", err)
	}
	return nil
}
