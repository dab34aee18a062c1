package verify

import (
	"bytes"
	"fmt"
	"strconv"
)

// maxPlainZeros is how many zeros appendNumber writes out behind a number before it uses an exponent.
const maxPlainZeros = 18

// appendNumber appends a valid JSON number in canonical form: equal numbers give equal bytes, exactly, without going through
// floating point. 7, 7.0 and 70e-1 all become 7.
func appendNumber(dst, raw []byte) []byte {
	if plainInteger(raw) {
		return append(dst, raw...)
	}
	negative := raw[0] == '-'
	mantissa := bytes.TrimPrefix(raw, []byte("-"))
	exponent := 0
	if i := bytes.IndexAny(mantissa, "eE"); i >= 0 {
		e, err := strconv.Atoi(string(mantissa[i+1:]))
		if err != nil { // out of any range; the raw text is as good a name as another
			return append(dst, raw...)
		}
		exponent, mantissa = e, mantissa[:i]
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte("."))
	digits := append(bytes.Clone(whole), fraction...)
	exponent -= len(fraction)
	trimmed := bytes.TrimRight(digits, "0")
	exponent += len(digits) - len(trimmed)
	trimmed = bytes.TrimLeft(trimmed, "0")
	if len(trimmed) == 0 {
		return append(dst, '0')
	}
	if negative {
		dst = append(dst, '-')
	}
	dst = append(dst, trimmed...)
	if 0 <= exponent && exponent <= maxPlainZeros {
		return append(dst, bytes.Repeat([]byte("0"), exponent)...)
	}
	return strconv.AppendInt(append(dst, 'e'), int64(exponent), 10)
}

// plainInteger reports whether a number is written as the canonical form of a not too long integer.
func plainInteger(raw []byte) bool {
	for i, c := range raw {
		if (c < '0' || c > '9') && (i > 0 || c != '-') {
			return false
		}
	}
	return len(raw) <= maxPlainZeros && string(raw) != "-0"
}

// integer reads the value as a whole number in the range of int64, also when it is written as a string.
func (v value) integer() (int64, error) {
	var scratch [64]byte
	text, err := v.appendText(scratch[:0])
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("is %q, not a whole number", v.raw)
	}
	return n, nil
}

// modular reads the value as a whole number in the range of int64 or uint64, modulo 2^64.
func (v value) modular() (uint64, error) {
	n, err := v.integer()
	if err == nil {
		return uint64(n), nil
	}
	text, textErr := v.appendText(nil)
	if textErr != nil {
		return 0, err
	}
	u, parseErr := strconv.ParseUint(string(text), 10, 64)
	if parseErr != nil {
		return 0, err
	}
	return u, nil
}
