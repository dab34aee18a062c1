package nexmark

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/understudy-stream/understudy/operator"
)

// row is what a query shows: a JSON object, written by hand, since most queries write as much as they read.
type row interface {
	appendJSON(dst []byte) []byte
}

// lines is the codec of rows where they leave the job. Nobody here reads them back.
type lines[T row] struct{}

func (lines[T]) Append(dst []byte, v T) ([]byte, error) { return v.appendJSON(dst), nil }

func (lines[T]) Decode([]byte) (v T, err error) {
	return v, fmt.Errorf("nexmark: reading back a row: %w", errors.ErrUnsupported)
}

// show ends a query.
func show[T row](rows operator.Stream[T], o *Options) {
	if o.Sink == nil {
		operator.ToTransactional(rows, "output", o.Transactional, operator.WithCodec[T](lines[T]{}))
		return
	}
	operator.To(rows, "output", o.Sink, operator.WithCodec[T](lines[T]{}))
}

// object is a JSON object under way. Names are written as they are.
type object []byte

func (o object) field(name string) object {
	if o[len(o)-1] != '{' {
		o = append(o, ',')
	}
	return append(append(append(o, '"'), name...), '"', ':')
}

func (o object) number(name string, n int64) object { return strconv.AppendInt(o.field(name), n, 10) }

func (o object) decimal(name string, t thousandths) object { return t.appendTo(o.field(name)) }

func (o object) text(name, s string) object {
	o = append(o.field(name), '"')
	done := 0
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= ' ' && c != '\\' && c != '"' && c < utf8.RuneSelf {
			continue
		}
		o = append(o, s[done:i]...)
		if s[i] == '\\' || s[i] == '"' {
			o = append(o, '\\', s[i])
			done = i + 1
			continue
		}
		return append(o, rest(s[i:])...)
	}
	return append(append(o, s[done:]...), '"')
}

// rest writes text with characters that no event has; they come from elsewhere, such as a side table.
func rest(s string) []byte {
	text, _ := operator.JSON[string]().Append(nil, s) // a string cannot fail
	return text[1:]
}

func (o object) end() []byte { return append(o, '}') }

// thousandths is a decimal number of three places, such as a price in cents times 0.908.
type thousandths int64

// appendTo writes it as a number with all its places. It is not negative.
func (t thousandths) appendTo(dst []byte) []byte {
	dst = append(strconv.AppendInt(dst, int64(t/1000), 10), '.')
	places := t % 1000
	return append(dst, byte('0'+places/100), byte('0'+places/10%10), byte('0'+places%10))
}

func (b Bid) appendJSON(dst []byte) []byte {
	return b.fields(append(dst, '{')).end()
}

func (b *Bid) fields(o object) object {
	return o.number("auction", b.Auction).number("bidder", b.Bidder).number("price", b.Price).number("dateTime", b.Time).
		text("extra", b.Extra)
}
