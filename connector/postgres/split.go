package postgres

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// split is a range of keys. Its string form is its identity in the job's metadata.
type split struct {
	Input       string // the table or query, as SQL
	Key         string
	First, Last int64 // keys, both included; Last is math.MaxInt64 for a range without end
	Rows        int64 // that it has; -1 if rows may come and go
}

// String gives the identity, such as
//
//	"\"events\"" by "id" from 1 to 1000, 998 rows
//	"\"events\"" by "id" from 1001 to 2000, followed
//	"\"events\"" by "id" from 2001, followed
func (s split) String() string {
	text := fmt.Sprintf("%s by %s from %d", strconv.Quote(s.Input), strconv.Quote(s.Key), s.First)
	if s.Last < math.MaxInt64 || s.Rows >= 0 {
		text += fmt.Sprintf(" to %d", s.Last)
	}
	if s.Rows < 0 {
		return text + ", followed"
	}
	return text + fmt.Sprintf(", %d rows", s.Rows)
}

// parseSplit is the inverse of String. It accepts nothing that String does not give.
func parseSplit(identity string) (split, error) {
	s := split{Last: math.MaxInt64, Rows: -1}
	rest, ok := identity, true
	take := func(before string, to *string) {
		var found bool
		if rest, found = strings.CutPrefix(rest, before); !found {
			ok = false
			return
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err == nil {
			*to, err = strconv.Unquote(quoted)
		}
		ok = ok && err == nil
		rest = rest[len(quoted):]
	}
	take("", &s.Input)
	take(" by ", &s.Key)
	rest, followed := strings.CutSuffix(rest, ", followed")
	var err error
	switch {
	case !followed:
		_, err = fmt.Sscanf(rest, " from %d to %d, %d rows", &s.First, &s.Last, &s.Rows)
	case strings.Contains(rest, " to "):
		_, err = fmt.Sscanf(rest, " from %d to %d", &s.First, &s.Last)
	default:
		_, err = fmt.Sscanf(rest, " from %d", &s.First)
	}
	if !ok || err != nil || s.String() != identity || s.First > s.Last {
		return split{}, fmt.Errorf("postgres: not the identity of a split: %q", identity)
	}
	return s, nil
}

// The offset after a row is how far its key is beyond the split's first one, plus one: a split that begins at key 1 has the keys
// themselves.

func (s split) after(key int64) uint64 { return uint64(key) - uint64(s.First) + 1 }

// from is the key at which reading goes on at an offset; false if the split has no such offset.
func (s split) from(offset uint64) (key int64, ok bool) {
	if offset > 0 && offset-1 > uint64(s.Last)-uint64(s.First) {
		return 0, false
	}
	return int64(uint64(s.First) + offset), true
}
