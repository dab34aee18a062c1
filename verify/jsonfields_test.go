package verify

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestFieldTree(t *testing.T) {
	for _, c := range []struct{ text, path, want string }{
		{`{"id":"a"}`, "id", "a"},
		{` { "x" : [1,{"id":"no"}] , "id" : 12 } `, "id", "12"},
		{`{"id":"a\"b\\c\u0041\ud83d\ude00"}`, "id", `a"b\cA😀`},
		{`{"\u0069d":"escaped key"}`, "id", "escaped key"},
		{`{"a":{"b":{"c":1.50}}}`, "a.b.c", "15e-1"},
		{`{"a":{"b":1},"a":{"c":2}}`, "a.b", "!is missing"},
		{`{"id":1,"id":2}`, "id", "2"},
		{`{"a":{"id":1}}`, "id", "!is missing"},
		{`{"a":1}`, "a.b", "!is missing"},
		{`{"id":true}`, "id", "true"},
		{`{"id":null}`, "id", "!is null"},
		{`{"id":{"x":1}}`, "id", "!is an object or array, not a single value"},
		{`{"id":[1]}`, "id", "!is an object or array, not a single value"},
		{`{"id":""}`, "id", ""},
		{`{}`, "id", "!is missing"},
	} {
		out := make([]value, 1)
		require.NoError(t, newFieldTree([]string{c.path}).find([]byte(c.text), out), c.text)
		got, err := out[0].appendText(nil)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			require.EqualError(t, err, want, c.text)
			continue
		}
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, string(got), c.text)
	}
}

func TestFieldTreeTakesSeveralFields(t *testing.T) {
	out := make([]value, 4)
	tree := newFieldTree([]string{"a", "b.c", "b", "a"})
	require.NoError(t, tree.find([]byte(`{"b":{"c":7},"a":"x"}`), out))
	require.Equal(t, []string{"x", "7", `{"c":7}`, "x"}, []string{out[0].text(), out[1].text(), out[2].text(), out[3].text()})
	require.NoError(t, tree.find([]byte(`{}`), out))
	require.Equal(t, make([]value, 4), out)
}

func TestFieldTreeRefuses(t *testing.T) {
	tree := newFieldTree([]string{"id"})
	for _, text := range []string{
		``, ` `, `{`, `{"id"`, `{"id":`, `{"id":1`, `{"id":1,`, `{"id":1,}`, `{id:1}`, `{"id":01}`, `{"id":1.}`, `{"id":-}`,
		`{"id":1e}`, `{"id":+1}`, `{"id":tru}`, `{"id":"a}`, `{"id":"\x"}`, `{"id":"\u12g4"}`, "{\"id\":\"\t\"}", `{"id":[1,]}`,
		`{"id":[1 2]}`, `{"id":1} x`, `{"id":1}{}`, `[1]`, `"x"`, `12`, `null`, `{"id":1 "x":2}`, `{"id":}`,
		strings.Repeat(`{"id":`, maxNesting+1) + "1" + strings.Repeat("}", maxNesting+1),
	} {
		require.Error(t, tree.find([]byte(text), make([]value, 1)), text[:min(40, len(text))])
	}
}

// FuzzFieldTree holds the scanner against encoding/json: it must accept the same objects and find the same fields.
func FuzzFieldTree(f *testing.F) {
	for _, seed := range []string{`{"id":"a","x":{"y":[1,2]}}`, `{"x":{"y":"\u00e9"},"id":-1.5e+3}`, `{"id":1,"id":null}`, `{`, `[]`} {
		f.Add([]byte(seed))
	}
	tree := newFieldTree([]string{"id", "x.y"})
	f.Fuzz(func(t *testing.T, text []byte) {
		out := make([]value, 2)
		err := tree.find(text, out)
		if trimmed := bytes.TrimSpace(text); json.Valid(text) && trimmed[0] == '{' {
			require.NoError(t, err)
		} else {
			require.Error(t, err)
			return
		}
		if !utf8.Valid(text) {
			return // encoding/json replaces what is not UTF-8
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var want map[string]any
		require.NoError(t, d.Decode(&want))
		same(t, want, "id", out[0])
		inner, _ := want["x"].(map[string]any)
		same(t, inner, "y", out[1])
	})
}

func same(t *testing.T, object map[string]any, key string, got value) {
	want, ok := object[key]
	if !ok {
		require.Equal(t, kindMissing, got.kind)
		return
	}
	require.NotEqual(t, kindMissing, got.kind)
	switch want := want.(type) {
	case string:
		text, err := got.appendText(nil)
		require.NoError(t, err)
		require.Equal(t, want, string(text))
	case json.Number:
		require.Equal(t, string(want), string(got.raw))
	default:
		a, err := appendCanonical(nil, got.raw)
		require.NoError(t, err)
		require.Equal(t, string(appendValue(nil, want)), string(a))
	}
}

func TestNumbers(t *testing.T) {
	for raw, want := range map[string]string{
		"7": "7", "7.0": "7", "70e-1": "7", "-0": "0", "0.000": "0", "-0.5": "-5e-1", "1e3": "1000", "1E+3": "1000",
		"100000000000000000000": "1e20", "123456789012345678901234567890": "123456789012345678901234567890",
		"0.10000000000000000001": "10000000000000000001e-20", "1e99999999999999999999": "1e99999999999999999999",
	} {
		require.Equal(t, want, string(appendNumber(nil, []byte(raw))), raw)
	}
}

// TestNumbersAreEqualAsTheirTextsAre holds the canonical form against exact rationals.
func TestNumbersAreEqualAsTheirTextsAre(t *testing.T) {
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?([eE][+-]?[0-3])?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		x, _ := new(big.Rat).SetString(a)
		y, _ := new(big.Rat).SetString(b)
		same := string(appendNumber(nil, []byte(a))) == string(appendNumber(nil, []byte(b)))
		if same != (x.Cmp(y) == 0) {
			t.Fatalf("%s and %s: same text %v", a, b, same)
		}
	})
}

func TestIntegers(t *testing.T) {
	for raw, want := range map[string]int64{"12": 12, "-3": -3, "12.0": 12, "9223372036854775807": 1<<63 - 1} {
		n, err := value{kindNumber, []byte(raw)}.integer()
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	n, err := value{kindString, []byte(`"12"`)}.integer()
	require.NoError(t, err)
	require.Equal(t, int64(12), n)
	for _, raw := range []string{"1.5", "9223372036854775808", "1e30"} {
		_, err := value{kindNumber, []byte(raw)}.integer()
		require.Error(t, err, raw)
	}
	u, err := value{kindNumber, []byte("18446744073709551615")}.modular()
	require.NoError(t, err)
	require.Equal(t, ^uint64(0), u)
	_, err = value{kindNumber, []byte("1.5")}.modular()
	require.Error(t, err)
}
