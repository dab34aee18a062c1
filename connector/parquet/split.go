package parquet

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/understudy-stream/understudy/connector/file"
)

// split is a row group of a file. Its string form is its identity in the job's metadata.
type split struct {
	File     string
	Group    int
	Rows     int64
	Size     int64 // of the file when the splits were listed
	Modified int64 // of the file then, in nanoseconds since the Unix epoch
}

// String gives the identity, such as
//
//	"in/a.parquet" group 2 with 1000 rows of 20000000 at 1735689600000000000
func (s split) String() string {
	return fmt.Sprintf("%s group %d with %d rows of %d at %d", strconv.Quote(s.File), s.Group, s.Rows, s.Size, s.Modified)
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
		_, err = fmt.Sscanf(rest, "group %d with %d rows of %d at %d", &s.Group, &s.Rows, &s.Size, &s.Modified)
	}
	if err != nil || s.String() != identity || s.Group < 0 || s.Rows < 1 || s.Size < 0 {
		return split{}, fmt.Errorf("parquet: not the identity of a split: %q", identity)
	}
	return s, nil
}

// timeFormat is how times of files are told to people.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// check tells whether the open file is still the one that the split was cut from.
func (s split) check(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("parquet: %w", err)
	}
	if info.Size() != s.Size || info.ModTime().UnixNano() != s.Modified {
		return fmt.Errorf("%w: %s has %d bytes of %s, had %d", file.ErrChanged, s.File, info.Size(),
			info.ModTime().UTC().Format(timeFormat), s.Size)
	}
	return nil
}
