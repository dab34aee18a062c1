package causal

import (
	"testing"
)

// What a reader has captured stays readable and the same, whatever happens to the log.
func TestCapturesKeepTheirBytes(t *testing.T) {
	fill := func(b byte) []byte {
		p := make([]byte, 2*segmentSize)
		for i := range p {
			p[i] = b
		}
		return p
	}
	for what, disturb := range map[string]func(l *Log){
		"append":   func(*Log) {},
		"truncate": func(l *Log) { l.Truncate(segmentSize + 50) },
		"cut":      func(l *Log) { l.Cut(segmentSize + 50) },
		"cut all":  func(l *Log) { l.Cut(0) },
		"cut late": func(l *Log) { l.Truncate(segmentSize); l.Cut(segmentSize + 1) },
		"restart": func(l *Log) {
			l.SetOwn(false)
			if err := l.Merge(9*segmentSize, fill('c'), true); err != nil {
				t.Fatal(err)
			}
		},
	} {
		l := NewLog(0)
		l.Append(fill('a')[:segmentSize+100])
		c := l.capture()
		disturb(l)
		l.Append(fill('b'))
		got := c.view.read(nil, 0, c.end)
		if string(got) != string(fill('a')[:segmentSize+100]) {
			t.Errorf("%s: a captured log changed", what)
		}
	}
}
