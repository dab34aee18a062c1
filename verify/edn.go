package verify

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The values of EDN, as ednReader returns them: nil, bool, string, ednNumber, ednKeyword, ednSymbol, []any for vectors and
// lists, ednSet, ednMap and ednTagged.
type (
	ednNumber  string // as it is written, such as 12, 3.5e1, 7N or 1/2
	ednKeyword string // without the colon
	ednSymbol  string
	ednSet     []any
	ednMap     []ednPair
	ednTagged  struct {
		tag   string
		value any
	}
	ednPair struct{ key, value any }
)

// get returns the value of a keyword in a map.
func (m ednMap) get(keyword string) (any, bool) {
	for _, p := range m {
		if p.key == ednKeyword(keyword) {
			return p.value, true
		}
	}
	return nil, false
}

const (
	maxEDNToken  = 1 << 20 // bytes of a string, number or name
	maxEDNNested = 200     // depth of collections
)

// ednNothing is what a discarded form (#_) reads as.
type ednNothing struct{}

// ednReader reads a stream of EDN values (github.com/edn-format/edn). It knows all of EDN that a history can contain;
// metadata is read and dropped.
type ednReader struct {
	r    *bufio.Reader
	line int64
}

func newEDNReader(r io.Reader) *ednReader {
	return &ednReader{r: bufio.NewReaderSize(r, 64<<10), line: 1}
}

// next returns the next value of the stream, or io.EOF behind the last one.
func (d *ednReader) next() (any, error) {
	for {
		c, err := d.skip()
		if err != nil {
			return nil, err
		}
		v, err := d.value(c, 0)
		if err != nil {
			return nil, d.inside(err)
		}
		if _, nothing := v.(ednNothing); !nothing {
			return v, nil
		}
	}
}

// inside makes the end of the stream an error, for where it may not end.
func (d *ednReader) inside(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (d *ednReader) byte() (byte, error) {
	c, err := d.r.ReadByte()
	if c == '\n' && err == nil {
		d.line++
	}
	return c, err
}

func (d *ednReader) back(c byte) {
	if c == '\n' {
		d.line--
	}
	d.r.UnreadByte() // cannot fail: a byte was just read
}

// skip returns the first byte that is neither space nor comment.
func (d *ednReader) skip() (byte, error) {
	for {
		c, err := d.byte()
		switch {
		case err != nil:
			return 0, err
		case c == ';':
			for c != '\n' {
				if c, err = d.byte(); err != nil {
					return 0, err
				}
			}
		case !ednSpace(c):
			return c, nil
		}
	}
}

func ednSpace(c byte) bool {
	return c == ' ' || c == ',' || '\t' <= c && c <= '\r'
}

// ednDelimiter reports whether a byte ends a number or name.
func ednDelimiter(c byte) bool {
	return ednSpace(c) || strings.IndexByte(`()[]{}";\`, c) >= 0
}

// value reads the value that begins with c.
func (d *ednReader) value(c byte, depth int) (any, error) {
	if depth > maxEDNNested {
		return nil, errors.New("nested too deep")
	}
	switch c {
	case '(':
		return d.sequence(')', depth)
	case '[':
		return d.sequence(']', depth)
	case '{':
		return d.mapping(depth)
	case '"':
		return d.string()
	case '\\':
		return d.character()
	case '#':
		return d.dispatch(depth)
	case '^':
		if _, err := d.form(depth); err != nil { // the metadata
			return nil, err
		}
		return d.form(depth)
	case ')', ']', '}':
		return nil, fmt.Errorf("unexpected %q", c)
	}
	token, err := d.token(c)
	if err != nil {
		return nil, err
	}
	return ednAtom(token)
}

// form reads a value inside another one, and is never ednNothing.
func (d *ednReader) form(depth int) (any, error) {
	for {
		c, err := d.skip()
		if err != nil {
			return nil, d.inside(err)
		}
		v, err := d.value(c, depth+1)
		if err != nil {
			return nil, err
		}
		if _, nothing := v.(ednNothing); !nothing {
			return v, nil
		}
	}
}

func (d *ednReader) sequence(end byte, depth int) ([]any, error) {
	elements := []any{}
	for {
		c, err := d.skip()
		if err != nil {
			return nil, d.inside(err)
		}
		if c == end {
			return elements, nil
		}
		v, err := d.value(c, depth+1)
		if err != nil {
			return nil, err
		}
		if _, nothing := v.(ednNothing); !nothing {
			elements = append(elements, v)
		}
	}
}

func (d *ednReader) mapping(depth int) (ednMap, error) {
	elements, err := d.sequence('}', depth)
	if err != nil {
		return nil, err
	}
	if len(elements)%2 != 0 {
		return nil, errors.New("map with a key that has no value")
	}
	m := make(ednMap, 0, len(elements)/2)
	for pair := range slices.Chunk(elements, 2) {
		m = append(m, ednPair{pair[0], pair[1]})
	}
	return m, nil
}

// dispatch reads what stands behind a #.
func (d *ednReader) dispatch(depth int) (any, error) {
	c, err := d.byte()
	if err != nil {
		return nil, d.inside(err)
	}
	switch c {
	case '{':
		elements, err := d.sequence('}', depth)
		return ednSet(elements), err
	case '_':
		_, err := d.form(depth)
		return ednNothing{}, err
	case ':': // namespaced map
		if _, err := d.token(c); err != nil {
			return nil, err
		}
		return d.form(depth)
	case '#': // ##Inf, ##-Inf, ##NaN
		token, err := d.token(c)
		return ednSymbol("#" + token), err
	}
	if ednDelimiter(c) {
		return nil, fmt.Errorf("unexpected %q behind #", c)
	}
	tag, err := d.token(c)
	if err != nil {
		return nil, err
	}
	v, err := d.form(depth)
	return ednTagged{tag, v}, err
}

// token reads a number or name that begins with c.
func (d *ednReader) token(c byte) (string, error) {
	token := []byte{c}
	for {
		c, err := d.byte()
		if errors.Is(err, io.EOF) {
			return string(token), nil
		}
		if err != nil {
			return "", err
		}
		if ednDelimiter(c) {
			d.back(c)
			return string(token), nil
		}
		if len(token) >= maxEDNToken {
			return "", errors.New("number or name is too long")
		}
		token = append(token, c)
	}
}

func ednAtom(token string) (any, error) {
	switch token {
	case "nil":
		return nil, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	if strings.HasPrefix(token, ":") {
		if len(token) == 1 {
			return nil, errors.New("keyword without name")
		}
		return ednKeyword(token[1:]), nil
	}
	digits := strings.TrimLeft(token, "+-")
	if len(token)-len(digits) <= 1 && digits != "" && '0' <= digits[0] && digits[0] <= '9' {
		return ednNumberOf(token)
	}
	if !utf8.ValidString(token) || strings.ContainsFunc(token, unicode.IsControl) {
		return nil, fmt.Errorf("malformed name %q", token)
	}
	return ednSymbol(token), nil
}

// ednNumberOf checks the form of a number. Whole numbers lose a plus sign and a final N.
func ednNumberOf(token string) (any, error) {
	plain := strings.TrimPrefix(token, "+")
	whole := strings.TrimSuffix(plain, "N")
	if strings.Trim(strings.TrimPrefix(whole, "-"), "0123456789") == "" {
		return ednNumber(whole), nil
	}
	if over, under, ok := strings.Cut(plain, "/"); ok {
		if strings.Trim(strings.TrimPrefix(over, "-"), "0123456789") == "" && under != "" && strings.Trim(under, "0123456789") == "" {
			return ednNumber(plain), nil
		}
	}
	_, err := strconv.ParseFloat(strings.TrimSuffix(plain, "M"), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return nil, fmt.Errorf("malformed number %q", token)
	}
	return ednNumber(plain), nil
}

func (d *ednReader) string() (string, error) {
	var text []byte
	for {
		c, err := d.byte()
		if err != nil {
			return "", d.inside(err)
		}
		switch c {
		case '"':
			return string(text), nil
		case '\\':
			if text, err = d.escape(text); err != nil {
				return "", err
			}
		default:
			text = append(text, c)
		}
		if len(text) > maxEDNToken {
			return "", errors.New("string is too long")
		}
	}
}

var ednEscapes = map[byte]byte{'t': '\t', 'r': '\r', 'n': '\n', 'b': '\b', 'f': '\f', '\\': '\\', '"': '"'}

func (d *ednReader) escape(text []byte) ([]byte, error) {
	c, err := d.byte()
	if err != nil {
		return nil, d.inside(err)
	}
	if plain, ok := ednEscapes[c]; ok {
		return append(text, plain), nil
	}
	if c != 'u' {
		return nil, fmt.Errorf("unknown escape \\%c", c)
	}
	var digits [4]byte
	if _, err := io.ReadFull(d.r, digits[:]); err != nil {
		return nil, d.inside(err)
	}
	n, err := strconv.ParseUint(string(digits[:]), 16, 16)
	if err != nil {
		return nil, fmt.Errorf("malformed escape \\u%q", digits)
	}
	return utf8.AppendRune(text, rune(n)), nil
}

var ednCharacters = map[string]string{"newline": "\n", "return": "\r", "space": " ", "tab": "\t", "formfeed": "\f",
	"backspace": "\b"}

// character reads a character as a string of one.
func (d *ednReader) character() (string, error) {
	c, err := d.byte()
	if err != nil {
		return "", d.inside(err)
	}
	token, err := d.token(c)
	if err != nil {
		return "", err
	}
	if named, ok := ednCharacters[token]; ok {
		return named, nil
	}
	if digits, ok := strings.CutPrefix(token, "u"); ok && len(digits) == 4 {
		if n, err := strconv.ParseUint(digits, 16, 16); err == nil {
			return string(rune(n)), nil
		}
	}
	return token, nil
}

// ednText writes a value, so that different values are different texts.
func ednText(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case bool:
		return strconv.FormatBool(v)
	case string:
		return strconv.Quote(v)
	case ednNumber:
		return string(v)
	case ednKeyword:
		return ":" + string(v)
	case ednSymbol:
		return string(v)
	case []any:
		return "[" + strings.Join(ednTexts(v), " ") + "]"
	case ednSet:
		return "#{" + strings.Join(slices.Sorted(slices.Values(ednTexts(v))), " ") + "}"
	case ednTagged:
		return "#" + v.tag + " " + ednText(v.value)
	case ednMap:
		entries := map[string]string{}
		for _, p := range v {
			entries[ednText(p.key)] = ednText(p.value)
		}
		var b strings.Builder
		for i, k := range slices.Sorted(maps.Keys(entries)) {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(k + " " + entries[k])
		}
		return "{" + b.String() + "}"
	}
	return fmt.Sprint(v)
}

func ednTexts(vs []any) []string {
	texts := make([]string, len(vs))
	for i, v := range vs {
		texts[i] = ednText(v)
	}
	return texts
}
