package plain

import (
	"strconv"

	"github.com/understudy-stream/understudy/internal/nexmark"
)

// row is a JSON object under way. Texts of the stream hold no character that JSON escapes but the backslash.
type row []byte

func (r row) number(name string, n int64) row { return strconv.AppendInt(r.field(name), n, 10) }

func (r row) field(name string) row {
	c := byte(',')
	if len(r) == 0 {
		c = '{'
	}
	r = append(r, c, '"')
	r = append(r, name...)
	return append(r, '"', ':')
}

func (r row) text(name, s string) row {
	r = append(r.field(name), '"')
	done := 0
	for i := range len(s) {
		if s[i] == '\\' || s[i] == '"' {
			r = append(append(r, s[done:i]...), '\\')
			done = i
		}
	}
	return append(append(r, s[done:]...), '"')
}

// thousandths writes n/1000 with three places.
func (r row) thousandths(name string, n int64) row {
	r = append(strconv.AppendInt(r.field(name), n/1000, 10), '.')
	n %= 1000
	return append(r, byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
}

// put ends a row.
func (w *writer) put(r row) {
	r = append(r, '}')
	w.buf = r
	w.out(r)
}

func (w *writer) bid(b *nexmark.Bid) {
	w.put(row(w.buf[:0]).number("auction", b.Auction).number("bidder", b.Bidder).number("price", b.Price).number("dateTime", b.Time).
		text("extra", b.Extra))
}
