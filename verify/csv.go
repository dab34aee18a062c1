package verify

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

var (
	errBareQuote = errors.New("malformed CSV: quote inside a field that does not begin with one")
	errAfter     = errors.New("malformed CSV: something between a closing quote and the comma")
	errOpenQuote = errors.New("malformed CSV: quoted field without end")
)

// csvRecord is one CSV record. Its buffers are reused.
type csvRecord struct {
	fields [][]byte // into text or unescaped
	// unescaped holds the fields that had quotes in quotes.
	unescaped []byte
}

// split takes a record, without its newline, apart as encoding/csv does with its defaults.
func (c *csvRecord) split(text []byte) error {
	c.fields, c.unescaped = c.fields[:0], c.unescaped[:0]
	for {
		if len(text) > 0 && text[0] == '"' {
			field, rest, err := c.quoted(text[1:])
			if err != nil {
				return err
			}
			c.fields = append(c.fields, field)
			if len(rest) == 0 {
				return nil
			}
			if rest[0] != ',' {
				return errAfter
			}
			text = rest[1:]
			continue
		}
		field, rest, more := bytes.Cut(text, []byte(","))
		if bytes.IndexByte(field, '"') >= 0 {
			return errBareQuote
		}
		c.fields = append(c.fields, field)
		if !more {
			return nil
		}
		text = rest
	}
}

// quoted reads a field from behind its opening quote and returns what follows the closing one.
func (c *csvRecord) quoted(text []byte) (field, rest []byte, err error) {
	i := bytes.IndexByte(text, '"')
	if i < 0 {
		return nil, nil, errOpenQuote
	}
	if i+1 >= len(text) || text[i+1] != '"' {
		return text[:i], text[i+1:], nil
	}
	start := len(c.unescaped)
	for {
		c.unescaped = append(c.unescaped, text[:i]...)
		text = text[i+1:]
		if len(text) == 0 || text[0] != '"' {
			return c.unescaped[start:len(c.unescaped):len(c.unescaped)], text, nil
		}
		c.unescaped = append(c.unescaped, '"')
		text = text[1:]
		if i = bytes.IndexByte(text, '"'); i < 0 {
			return nil, nil, errOpenQuote
		}
	}
}

// csvFile reads the records of one CSV file from a scanner's lines.
type csvFile struct {
	s      *scanner
	record csvRecord
	joined []byte // a record that spans lines
}

// next reads the next record into f.record, skipping blank lines. ok is false at the end.
func (f *csvFile) next() (ok bool, err error) {
	s := f.s
	for {
		ln, ok, err := s.next()
		if err != nil || !ok {
			return false, err
		}
		text := bytes.TrimSuffix(ln.text, []byte("\r"))
		if len(text) == 0 {
			continue
		}
		if bytes.Count(text, []byte(`"`))%2 != 0 {
			if text, ok, err = f.join(text); err != nil || !ok {
				return false, err
			}
		}
		s.row.text = text
		if err := f.record.split(text); err != nil {
			return false, s.row.fail("%w", err)
		}
		return true, nil
	}
}

// join adds lines to a record until its quotes are closed.
func (f *csvFile) join(first []byte) (text []byte, ok bool, err error) {
	s := f.s
	at, offset := s.row.at, s.row.offset
	f.joined = append(f.joined[:0], first...)
	for {
		ln, ok, err := s.next()
		if err != nil {
			return nil, false, err
		}
		torn := !ok && ln.text != nil
		s.row.at, s.row.offset = at, offset
		if torn {
			return nil, false, nil
		}
		if !ok {
			return nil, false, s.row.fail("%w", errOpenQuote)
		}
		if len(f.joined)+len(ln.text) > MaxLine {
			return nil, false, s.row.fail("record is longer than %d bytes", MaxLine)
		}
		f.joined = append(append(f.joined, '\n'), bytes.TrimSuffix(ln.text, []byte("\r"))...)
		if bytes.Count(ln.text, []byte(`"`))%2 != 0 {
			return f.joined, true, nil
		}
	}
}

func (s *scanner) eachCSV(fn func(*row) error) error {
	f := csvFile{s: s}
	ok, err := f.next()
	if err != nil || !ok {
		return err
	}
	columns, err := s.columns(f.record.fields)
	if err != nil {
		return err
	}
	width := len(f.record.fields)
	for {
		ok, err := f.next()
		if err != nil || !ok {
			return err
		}
		if len(f.record.fields) != width {
			return s.row.fail("%d columns where the header has %d", len(f.record.fields), width)
		}
		for i, column := range columns {
			s.row.fields[s.treeTo[i]] = value{kindText, f.record.fields[column]}
		}
		if err := s.emit(fn); err != nil {
			return err
		}
	}
}

// columns finds the column of each field by its name in the header.
func (s *scanner) columns(header [][]byte) ([]int, error) {
	columns := make([]int, len(s.treeTo))
	for i, field := range s.treeTo {
		name := s.Fields[field]
		columns[i] = slices.IndexFunc(header, func(h []byte) bool {
			return string(bytes.TrimPrefix(h, []byte("\ufeff"))) == name
		})
		if columns[i] < 0 {
			return nil, fmt.Errorf("%w: %s has no column %q, only %q", ErrUnusable, s.row.path, name, header)
		}
	}
	return columns, nil
}
