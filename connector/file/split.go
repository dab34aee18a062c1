package file

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// split is a byte range of a file: the lines that start in it. Its string form is its identity in the job's metadata.
type split struct {
	File       string
	Start, End int64
	Size       int64 // of the file when the splits were listed
	Modified   int64 // of the file then, in nanoseconds since the Unix epoch
	Gzip       bool
}

// String gives the identity, such as
//
//	"in/a.jsonl" 0-16777216 of 20000000 at 1735689600000000000
//	"in/b.jsonl.gz" 0-512 of 512 at 1735689600000000000 gzip
func (s split) String() string {
	text := fmt.Sprintf("%s %d-%d of %d at %d", strconv.Quote(s.File), s.Start, s.End, s.Size, s.Modified)
	if s.Gzip {
		text += " gzip"
	}
	return text
}

// parseSplit is the inverse of String. It accepts nothing that String does not give.
func parseSplit(identity string) (split, error) {
	var s split
	quoted, err := strconv.QuotedPrefix(identity)
	if err == nil {
		s.File, err = strconv.Unquote(quoted)
	}
	if err == nil {
		rest := strings.TrimPrefix(identity[len(quoted):], " ")
		rest, s.Gzip = strings.CutSuffix(rest, " gzip")
		_, err = fmt.Sscanf(rest, "%d-%d of %d at %d", &s.Start, &s.End, &s.Size, &s.Modified)
	}
	if err != nil || s.String() != identity || s.Start < 0 || s.Start > s.End || s.End > s.Size {
		return split{}, fmt.Errorf("file: not the identity of a split: %q", identity)
	}
	return s, nil
}

// timeFormat is how times of files are told to people.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// check tells whether the open file is still the one that the split was cut from.
func (s split) check(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	if info.Size() != s.Size || info.ModTime().UnixNano() != s.Modified {
		return fmt.Errorf("%w: %s has %d bytes of %s, had %d", ErrChanged, s.File, info.Size(),
			info.ModTime().UTC().Format(timeFormat), s.Size)
	}
	return nil
}
