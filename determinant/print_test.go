package determinant_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	. "github.com/understudy-stream/understudy/determinant"
)

func TestEveryKindHasItsName(t *testing.T) {
	seen := map[string]bool{}
	for k := KindNone; k <= KindMark; k++ {
		if name := k.String(); name == "" || seen[name] {
			t.Errorf("kind %d is called %q", k, name)
		} else {
			seen[name] = true
		}
		d := Determinant{Kind: k}
		if !strings.HasPrefix(d.String(), k.String()) {
			t.Errorf("%v prints as %q", k, d.String())
		}
	}
	if got := Kind(99).String(); got != "kind(99)" {
		t.Error(got)
	}
}

func TestStringCutsLongResults(t *testing.T) {
	d := Determinant{Kind: KindCall, Hash: 1, Bytes: bytes.Repeat([]byte("x"), 10000)}
	if s := d.String(); len(s) > 200 || !strings.Contains(s, "(10000 bytes)") {
		t.Error(s)
	}
}

func TestPrintStopsAtDamage(t *testing.T) {
	var enc Encoder
	log := enc.Append(nil, &Determinant{Kind: KindMark, Epoch: 3})
	good := len(log)
	log = enc.Append(log, &Determinant{Kind: KindRandom, Seed: 1})
	var out bytes.Buffer
	err := Print(&out, log[:len(log)-1], 100)
	if !errors.Is(err, ErrShort) || !strings.Contains(err.Error(), "102") || good != 2 {
		t.Errorf("error %v", err)
	}
	if got := out.String(); got != "       100  mark epoch=3\n" {
		t.Errorf("printed %q", got)
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestPrintReportsAFailingWriter(t *testing.T) {
	var enc Encoder
	log := enc.Append(nil, &Determinant{Kind: KindMark, Epoch: 3})
	if err := Print(brokenWriter{}, log, 0); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	if err := Print(brokenWriter{}, append(log, 0), 0); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

func TestModesHaveNames(t *testing.T) {
	for m := ExactlyOnce; m <= None; m++ {
		if got, err := ParseMode(m.String()); err != nil || got != m {
			t.Errorf("%v parses as %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("twice"); err == nil {
		t.Error("no error")
	}
	if got := Mode(9).String(); got != "mode(9)" {
		t.Error(got)
	}
	if !ExactlyOnce.Logs() || AtLeastOnce.Logs() || !AtLeastOnce.Retains() || GlobalRollback.Retains() {
		t.Error("a mode records the wrong things")
	}
}

func TestDepthsHaveNames(t *testing.T) {
	if Full.String() != "full" || Depth(3).String() != "3" {
		t.Error(Full, Depth(3))
	}
}
