package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxNesting is the deepest JSON that is read, as in encoding/json.
const maxNesting = 10000

var errNotObject = errors.New("not a JSON object")

// valueKind says what a field holds.
type valueKind byte

const (
	kindMissing  valueKind = iota
	kindText               // raw is the text itself: a CSV column or a pseudo-field
	kindString             // raw is a JSON string with its quotes, without escapes
	kindEscaped            // raw is a JSON string with its quotes and escapes
	kindNumber             // raw is a JSON number
	kindLiteral            // raw is true, false or null
	kindCompound           // raw is a JSON object or array
)

// value is a field of a record. raw belongs to the line it was found in.
type value struct {
	kind valueKind
	raw  []byte
}

// fieldTree finds named fields in a JSON object without building it. The names are paths: "a.b" is b inside a.
//
// It reads the whole line, once, and accepts exactly what encoding/json accepts; of a key that stands twice in an object the
// last one counts, also as in encoding/json.
type fieldTree struct {
	root  fieldNode
	paths int
}

type fieldNode struct {
	name     []byte
	children []*fieldNode
	slots    []int // where in the result this field goes; a path may be asked for twice
}

func newFieldTree(paths []string) *fieldTree {
	t := &fieldTree{paths: len(paths)}
	for i, path := range paths {
		n := &t.root
		for part := range strings.SplitSeq(path, ".") {
			n = n.child(part)
		}
		n.slots = append(n.slots, i)
	}
	return t
}

func (n *fieldNode) child(name string) *fieldNode {
	for _, c := range n.children {
		if string(c.name) == name {
			return c
		}
	}
	c := &fieldNode{name: []byte(name)}
	n.children = append(n.children, c)
	return c
}

// find puts the fields of one JSON object into out, which has one place per path.
func (t *fieldTree) find(text []byte, out []value) error {
	clear(out[:t.paths])
	s := jsonScan{text: text, out: out}
	s.space()
	if s.at >= len(s.text) {
		return s.fail("unexpected end")
	}
	if s.text[s.at] != '{' {
		if err := s.any(0, nil); err != nil {
			return err
		}
		return errNotObject
	}
	if err := s.object(0, &t.root); err != nil {
		return err
	}
	s.space()
	if s.at != len(s.text) {
		return s.fail("something behind the object")
	}
	return nil
}

// jsonScan is a walk over one JSON text.
type jsonScan struct {
	text []byte
	at   int
	out  []value
}

func (s *jsonScan) fail(what string) error {
	return fmt.Errorf("malformed JSON at byte %d: %s", s.at, what)
}

func (s *jsonScan) space() {
	for s.at < len(s.text) && s.text[s.at] <= ' ' {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

func (s *jsonScan) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// object walks an object whose fields below n are wanted; n is nil if none is.
func (s *jsonScan) object(depth int, n *fieldNode) error {
	if depth >= maxNesting {
		return s.fail("nested too deep")
	}
	s.at++
	s.space()
	if s.peek() == '}' {
		s.at++
		return nil
	}
	for {
		if err := s.member(depth, n); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
			s.space()
		case '}':
			s.at++
			return nil
		default:
			return s.fail("expected , or } in an object")
		}
	}
}

func (s *jsonScan) member(depth int, n *fieldNode) error {
	if s.peek() != '"' {
		return s.fail("expected a key")
	}
	start := s.at
	escaped, err := s.string()
	if err != nil {
		return err
	}
	var wanted *fieldNode
	if n != nil {
		wanted = n.match(s.text[start:s.at], escaped)
	}
	s.space()
	if s.peek() != ':' {
		return s.fail("expected : behind a key")
	}
	s.at++
	s.space()
	return s.any(depth+1, wanted)
}

func (n *fieldNode) match(quoted []byte, escaped bool) *fieldNode {
	name := quoted[1 : len(quoted)-1]
	if escaped {
		name = unquote(quoted, nil)
	}
	for _, c := range n.children {
		if bytes.Equal(c.name, name) {
			return c
		}
	}
	return nil
}

// any walks one value of any kind and keeps it if n wants it.
func (s *jsonScan) any(depth int, n *fieldNode) error {
	if n != nil {
		s.forget(n)
	}
	start := s.at
	kind, err := kindMissing, error(nil)
	switch c := s.peek(); {
	case c == '"':
		var escaped bool
		escaped, err = s.string()
		kind = kindString
		if escaped {
			kind = kindEscaped
		}
	case c == '{':
		kind, err = kindCompound, s.object(depth, n)
	case c == '[':
		kind, err = kindCompound, s.array(depth)
	case c == '-' || '0' <= c && c <= '9':
		kind, err = kindNumber, s.number()
	default:
		kind, err = kindLiteral, s.literal()
	}
	if err == nil && n != nil {
		for _, slot := range n.slots {
			s.out[slot] = value{kind, s.text[start:s.at]}
		}
	}
	return err
}

// forget drops what an earlier key of the same name had put at and below n.
func (s *jsonScan) forget(n *fieldNode) {
	for _, slot := range n.slots {
		s.out[slot] = value{}
	}
	for _, c := range n.children {
		s.forget(c)
	}
}

func (s *jsonScan) array(depth int) error {
	if depth >= maxNesting {
		return s.fail("nested too deep")
	}
	s.at++
	s.space()
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		if err := s.any(depth+1, nil); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
			s.space()
		case ']':
			s.at++
			return nil
		default:
			return s.fail("expected , or ] in an array")
		}
	}
}

// plainInString marks the bytes that need no attention inside a string.
var plainInString = func() (plain [256]bool) {
	for c := 0x20; c < 256; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

// string walks a string and reports whether there are escapes in it.
func (s *jsonScan) string() (escaped bool, err error) {
	text, i := s.text, s.at+1
	for {
		for i < len(text) && plainInString[text[i]] {
			i++
		}
		if i >= len(text) {
			s.at = len(text)
			return false, s.fail("string without end")
		}
		switch text[i] {
		case '"':
			s.at = i + 1
			return escaped, nil
		case '\\':
			escaped = true
			n := escapeLength(text[i:])
			if n == 0 {
				s.at = i
				return false, s.fail("bad escape")
			}
			i += n
		default:
			s.at = i
			return false, s.fail("control character in a string")
		}
	}
}

// escapeLength is the length of the escape that text begins with, 0 if it is none.
func escapeLength(text []byte) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(text) < 6 {
			return 0
		}
		for _, c := range text[2:6] {
			if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func (s *jsonScan) number() error {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return s.fail("bad number")
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return s.fail("bad number")
		}
	}
	if s.peek()|0x20 == 'e' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if !s.digits() {
			return s.fail("bad number")
		}
	}
	return nil
}

func (s *jsonScan) digits() bool {
	start := s.at
	for s.at < len(s.text) && '0' <= s.text[s.at] && s.text[s.at] <= '9' {
		s.at++
	}
	return s.at > start
}

func (s *jsonScan) literal() error {
	for _, word := range [...]string{"true", "false", "null"} {
		if bytes.HasPrefix(s.text[s.at:], []byte(word)) {
			s.at += len(word)
			return nil
		}
	}
	return s.fail("expected a value")
}

// unquote appends the text of a valid JSON string to dst.
func unquote(quoted, dst []byte) []byte {
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		panic("verify: unquote of a string that was not scanned: " + err.Error())
	}
	return append(dst, text...)
}

// appendText appends the value as text: a string without quotes, a number in canonical form, so that the same id is the same
// text whatever file it stands in. It fails for what cannot be an id or a key.
func (v value) appendText(dst []byte) ([]byte, error) {
	switch v.kind {
	case kindText:
		return append(dst, v.raw...), nil
	case kindString:
		return append(dst, v.raw[1:len(v.raw)-1]...), nil
	case kindEscaped:
		return unquote(v.raw, dst), nil
	case kindNumber:
		return appendNumber(dst, v.raw), nil
	case kindLiteral:
		if v.raw[0] != 'n' {
			return append(dst, v.raw...), nil
		}
		return dst, errors.New("is null")
	case kindCompound:
		return dst, errors.New("is an object or array, not a single value")
	}
	return dst, errors.New("is missing")
}

// text returns the value as a string, for showing and for rare paths.
func (v value) text() string {
	b, err := v.appendText(nil)
	if err != nil {
		return string(v.raw)
	}
	if !utf8.Valid(b) {
		return fmt.Sprintf("%q", b)
	}
	return string(b)
}
