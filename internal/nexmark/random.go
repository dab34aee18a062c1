package nexmark

import (
	"encoding/binary"
	"math"
	"slices"
)

// random is java.util.Random: a linear congruential generator of 48 bits (Knuth, The Art of Computer Programming, volume 2,
// section 3.2.1). Only the low 48 bits of the state count; they are masked off where they are used.
type random uint64

const (
	lcgFactor = 0x5DEECE66D
	lcgAddend = 0xB
)

// seeded scrambles a seed as Java does.
func seeded(seed uint64) random { return random(seed ^ lcgFactor) }

// step is the next state.
func (r random) step() random { return r*lcgFactor + lcgAddend }

// next31 is next(31): the upper 31 bits of the next state.
func (r *random) next31() uint32 {
	*r = r.step()
	return uint32(*r>>17) & math.MaxInt32
}

// word is nextInt(): the upper 32 bits, with a sign.
func (r *random) word() int32 {
	*r = r.step()
	return int32(uint32(*r >> 16))
}

// intn is nextInt(bound), for a positive bound. Values from the last, incomplete multiple of bound are rejected.
func (r *random) intn(bound uint32) uint32 {
	u := r.next31()
	if bound&(bound-1) == 0 {
		return uint32(uint64(bound) * uint64(u) >> 31)
	}
	v := u % bound
	for u-v+bound-1 > math.MaxInt32 {
		u = r.next31()
		v = u % bound
	}
	return v
}

// int64n is Beam's draw below a long bound: an int where that is enough, otherwise the remainder of a long.
func (r *random) int64n(bound int64) int64 {
	if bound < math.MaxInt32 {
		return int64(r.intn(uint32(bound)))
	}
	upper, lower := int64(r.word()), int64(r.word())
	v := (upper<<32 + lower) % bound
	if v < 0 {
		v = -v
	}
	return v
}

// fraction is nextDouble() times 1<<53.
func (r *random) fraction() uint64 {
	*r = r.step()
	high := uint64(*r>>22) & (1<<26 - 1)
	*r = r.step()
	return high<<27 + uint64(*r>>21)&(1<<27-1)
}

// price draws 10^(6u) dollars, in cents, rounded half up as Math.round does.
func (r *random) price() int64 {
	f := r.fraction()
	// The upper ten bits by a table, the others by the series of the exponential function.
	x := float64(f&(1<<43-1)) * (6 * math.Ln10 / (1 << 53))
	cents := steps[f>>43] * (1 + x*(1+x*(1./2+x*(1./6+x*(1./24+x*(1./120))))))
	if rest := cents - math.Floor(cents); math.Abs(rest-0.5) < nearHalf {
		cents = math.Pow(10, float64(f)/(1<<53)*6) * 100 // slower, and closer to what Java computes
	}
	return int64(math.Floor(cents + 0.5))
}

// nearHalf is beyond the error of the series for the greatest price, 1e8: 1e-14 of it.
const nearHalf = 1e-5

// steps are the prices of u = i/1024, in cents.
var steps = func() (t [1024]float64) {
	for i := range t {
		t[i] = math.Pow(10, float64(i)/1024*6) * 100
	}
	return t
}()

// letters appends a word of at most limit characters, without the spaces at its ends.
func (r *random) letters(dst []byte, limit uint32) []byte {
	n := minWord + r.intn(limit-minWord)
	start := len(dst)
	for range n {
		u := r.next31() // intn(13) and intn(26), which are most of an auction, with divisors that the compiler knows
		for u-u%13+12 > math.MaxInt32 {
			u = r.next31()
		}
		c := byte(' ')
		if u%13 != 0 {
			u = r.next31()
			for u-u%26+25 > math.MaxInt32 {
				u = r.next31()
			}
			c = 'a' + byte(u%26)
		}
		if c == ' ' && len(dst) == start {
			continue
		}
		dst = append(dst, c)
	}
	for len(dst) > start && dst[len(dst)-1] == ' ' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

const minWord = 3

// filler appends text that brings an event of size bytes to the average size that is asked for, within a fifth.
func (r *random) filler(dst []byte, size, average int) []byte {
	if size > average {
		return dst
	}
	missing := average - size
	spread := int(math.Round(float64(missing) * 0.2))
	n := missing - spread
	if spread > 0 {
		n += int(r.intn(uint32(2 * spread)))
	}
	return r.exactly(dst, n)
}

// exactly appends n characters, six from each word. A negative word gives characters below 'a'.
func (r *random) exactly(dst []byte, n int) []byte {
	start := len(dst)
	dst = slices.Grow(dst, n+8)[:start+n+8] // the last word is written whole
	seed := *r
	for at := start; at < start+n; at += 6 {
		seed = seed.step()
		binary.LittleEndian.PutUint64(dst[at:], six(int32(uint32(seed>>16))))
	}
	*r = seed
	return dst[:start+n]
}

// pairs are the characters of two digits to the base 26, the lower one first; of a negative number from pairs[26*26] on.
var pairs = func() (p [2 * 26 * 26]uint16) {
	for i := range 26 * 26 {
		low, high := uint16(i%26), uint16(i/26)
		p[i] = 'a' + low | ('a'+high)<<8
		p[26*26+i] = 'a' - low | ('a'-high)<<8
	}
	return p
}()

// six gives the six lowest digits of a word to the base 26 as characters, in the lowest bytes.
func six(word int32) uint64 {
	sign := uint32(word >> 31) // all ones if negative
	v := (uint32(word) ^ sign) - sign
	table := pairs[sign&(26*26):]
	q := v / (26 * 26)
	qq := q / (26 * 26)
	return uint64(table[v-q*(26*26)]) | uint64(table[q-qq*(26*26)])<<16 | uint64(table[qq%(26*26)])<<32
}
