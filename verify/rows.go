package verify

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Format is how the records of a file are written.
type Format int

// The formats. A name that ends in .gz is unpacked first, whatever the format.
const (
	Auto  Format = iota // by the name: .jsonl, .ndjson and .json, .csv, everything else plain lines
	JSONL               // one JSON object per line
	CSV                 // as in RFC 4180, with names in the first record of each file
	Lines               // each line is a record, blank ones too
)

var formatNames = []string{"auto", "jsonl", "csv", "lines"}

// ParseFormat returns the format of a name.
func ParseFormat(name string) (Format, error) {
	i := slices.Index(formatNames, name)
	if i < 0 {
		return Auto, fmt.Errorf("verify: unknown format %q; known are %s", name, strings.Join(formatNames, ", "))
	}
	return Format(i), nil
}

// String returns the name of the format.
func (f Format) String() string {
	if f < 0 || int(f) >= len(formatNames) {
		return "Format(" + strconv.Itoa(int(f)) + ")"
	}
	return formatNames[f]
}

func (f Format) of(path string) Format {
	if f != Auto {
		return f
	}
	switch dataExtension(path) {
	case ".jsonl", ".ndjson", ".json":
		return JSONL
	case ".csv":
		return CSV
	}
	return Lines
}

// Torn says what to do with a last line that has no newline behind it.
type Torn int

// The treatments of a torn last line.
const (
	TornDefault  Torn = iota // TornReported for outputs, TornAccepted for inputs
	TornReported             // a violation, and not a record
	TornAccepted             // a record like any other
	TornIgnored              // not a record: somebody may be writing it
)

var tornNames = []string{"default", "report", "accept", "ignore"}

// ParseTorn returns the treatment of a name.
func ParseTorn(name string) (Torn, error) {
	i := slices.Index(tornNames, name)
	if i < 0 {
		return TornDefault, fmt.Errorf("verify: unknown treatment of torn lines %q; known are %s", name,
			strings.Join(tornNames, ", "))
	}
	return Torn(i), nil
}

// Selection names the files of one side of a check and the fields to take from their records.
type Selection struct {
	// Paths are files, globs, in which ** stands for any number of folders, and folders. A folder means the .jsonl, .ndjson,
	// .json, .csv and .txt files below it, each also with .gz.
	Paths []string
	// Format is how the files are written.
	Format Format
	// Fields are JSON paths such as "user.id", names of CSV columns, or the pseudo-fields @file, @offset (of the record's
	// first byte, unpacked), @number (of the line, from 1) and @line (the whole record). Plain lines have only the latter.
	Fields []string
	// Torn is what to do with a last line without newline.
	Torn Torn
}

// The pseudo-fields, in the order of pseudoNames.
const (
	pseudoFile = iota
	pseudoOffset
	pseudoNumber
	pseudoLine
)

var pseudoNames = []string{"@file", "@offset", "@number", "@line"}

// row is one record of a file with the fields that were asked for. All of it is valid until the next row.
type row struct {
	at     place
	path   string
	offset int64
	text   []byte
	fields []value
}

func (r *row) where() string { return r.path + ":" + strconv.FormatInt(r.at.line, 10) }

// fail makes an error about this row.
func (r *row) fail(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrUnusable, r.where(), fmt.Errorf(format, args...))
}

// scanner reads the rows of a selection.
type scanner struct {
	Selection
	side  byte
	files []string
	m     *meter
	torn  *tally // where torn lines are counted

	lines   lineReader
	tree    *fieldTree
	treeTo  []int // which field each path of the tree is
	found   []value
	pseudo  []int  // per field its pseudo-field, or -1
	path    []byte // of the file that is being read
	numbers []byte
	row     row
}

// newScanner expands the selection's patterns. side tells places of different selections apart.
func newScanner(sel Selection, side byte, m *meter, torn *tally) (*scanner, error) {
	files, err := expand(sel.Paths)
	if err != nil {
		return nil, err
	}
	s := &scanner{Selection: sel, side: side, files: files, m: m, torn: torn}
	var paths []string
	for i, name := range sel.Fields {
		p := slices.Index(pseudoNames, name)
		if p < 0 && strings.HasPrefix(name, "@") {
			return nil, fmt.Errorf("verify: unknown pseudo-field %q; known are %s", name, strings.Join(pseudoNames, ", "))
		}
		s.pseudo = append(s.pseudo, p)
		if p < 0 {
			paths = append(paths, name)
			s.treeTo = append(s.treeTo, i)
		}
	}
	s.tree = newFieldTree(paths)
	s.found = make([]value, len(paths))
	s.row.fields = make([]value, len(sel.Fields))
	return s, nil
}

// where returns a place of this selection as file:line.
func (s *scanner) where(p place) string {
	return s.files[p.file] + ":" + strconv.FormatInt(p.line, 10)
}

// each calls fn for every row of every file, in order. It returns how many rows there were.
func (s *scanner) each(phase string, fn func(*row) error) (int64, error) {
	s.m.phase(phase, sizes(s.files))
	var rows int64
	for i, path := range s.files {
		s.row.at, s.row.path, s.path = place{side: s.side, file: i}, path, []byte(path)
		err := s.eachOf(path, func(r *row) error {
			rows++
			if err := s.m.tick(); err != nil {
				return err
			}
			return fn(r)
		})
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func (s *scanner) eachOf(path string, fn func(*row) error) error {
	f, err := openFile(path, s.m)
	if err != nil {
		return err
	}
	defer f.Close()
	s.lines.reset(f)
	switch s.Format.of(path) {
	case JSONL:
		return s.eachJSON(fn)
	case CSV:
		return s.eachCSV(fn)
	}
	return s.eachLine(fn)
}

// next reads the next line and deals with a torn one. ok is false at the end of the file.
func (s *scanner) next() (ln line, ok bool, err error) {
	ln, err = s.lines.next()
	if err == io.EOF {
		return line{}, false, nil
	}
	if err != nil {
		return line{}, false, fmt.Errorf("%w: %s: %w", ErrUnusable, s.row.path, err)
	}
	s.row.at.line, s.row.offset, s.row.text = ln.number, ln.offset, ln.text
	return ln, ln.ended || s.acceptTorn(), nil
}

// acceptTorn reports whether the current row, a line without newline, is a record.
func (s *scanner) acceptTorn() bool {
	switch s.Torn {
	case TornIgnored:
		return false
	case TornReported:
		s.torn.add(1, s.row.at, func() Offender {
			return Offender{What: shorten(string(s.row.text)), Where: s.row.where(), Detail: "no newline behind the last line"}
		})
		return false
	}
	return true
}

func (s *scanner) eachJSON(fn func(*row) error) error {
	for {
		ln, ok, err := s.next()
		if err != nil || !ok {
			return err
		}
		if len(bytes.TrimSpace(ln.text)) == 0 {
			continue
		}
		if err := s.tree.find(ln.text, s.found); err != nil {
			return s.row.fail("%w: %s", err, shorten(string(ln.text)))
		}
		for i, v := range s.found {
			s.row.fields[s.treeTo[i]] = v
		}
		if err := s.emit(fn); err != nil {
			return err
		}
	}
}

func (s *scanner) eachLine(fn func(*row) error) error {
	if len(s.treeTo) > 0 {
		return fmt.Errorf("%w: %s is plain lines, which have no field %q, only %s", ErrUnusable, s.row.path,
			s.Fields[s.treeTo[0]], strings.Join(pseudoNames, ", "))
	}
	for {
		_, ok, err := s.next()
		if err != nil || !ok {
			return err
		}
		if err := s.emit(fn); err != nil {
			return err
		}
	}
}

// emit fills in the pseudo-fields and hands the row on.
func (s *scanner) emit(fn func(*row) error) error {
	s.numbers = s.numbers[:0]
	for i, p := range s.pseudo {
		var text []byte
		switch p {
		case pseudoFile:
			text = s.path
		case pseudoOffset:
			text = s.number(s.row.offset)
		case pseudoNumber:
			text = s.number(s.row.at.line)
		case pseudoLine:
			text = s.row.text
		default:
			continue
		}
		s.row.fields[i] = value{kindText, text}
	}
	return fn(&s.row)
}

func (s *scanner) number(n int64) []byte {
	start := len(s.numbers)
	s.numbers = strconv.AppendInt(s.numbers, n, 10)
	return s.numbers[start:]
}

const shownLength = 120 // bytes of a line or id that an error or a report shows

// shorten cuts a text that is too long to be shown.
func shorten(text string) string {
	if len(text) <= shownLength {
		return text
	}
	return strings.ToValidUTF8(text[:shownLength], "") + "…"
}
