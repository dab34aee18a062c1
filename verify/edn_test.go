package verify

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func readEDN(text string) ([]string, error) {
	d := newEDNReader(strings.NewReader(text))
	var got []string
	for {
		v, err := d.next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, ednText(v))
	}
}

func TestEDN(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "",
		" ; nothing\n":                      "",
		"1 -2 +3 4N 5.5e1 6.0M 7/8 -0":      "1|-2|3|4|5.5e1|6.0M|7/8|-0",
		":a :b/c :type? nil true false sym": ":a|:b/c|:type?|nil|true|false|sym",
		`"a\"\\\n\u00e9" "é"`:               `"a\"\\\né"|"é"`,
		`\a \newline \u0041 \( `:            `"a"|"\n"|"A"|"("`,
		`[1,(2 [3]) #{2 1}]`:                "[1 [2 [3]] #{1 2}]",
		`{:b 1, :a {"x" nil}}`:              `{:a {"x" nil}, :b 1}`,
		`[1 #_2 #_ #_ 3 4 5]`:               "[1 5]",
		`#_x 1 #_y`:                         "1",
		`#inst "2020" #a.b{:c 1}`:           `#inst "2020"|#a.b {:c 1}`,
		`#:n{:a 1} ##Inf ##-Inf`:            "{:a 1}|##Inf|##-Inf",
		`^:m [1] ^{:t 1} x`:                 "[1]|x",
		"- + -x +y":                         "-|+|-x|+y",
		"[1;c\n2]":                          "[1 2]",
		`1"x":k[]`:                          `1|"x"|:k|[]`,
	} {
		got, err := readEDN(text)
		require.NoError(t, err, text)
		require.Equal(t, want, strings.Join(got, "|"), text)
	}
}

func TestEDNRefuses(t *testing.T) {
	for _, text := range []string{
		"[", "(1", "{:a", "{:a}", "{:a 1", "]", ")", "}", `"x`, `"\q"`, `"\u12"`, `"\u12g4"`, "#", "#{", "#_", "# x", "#tag", "1x", "1/", "1.2.3", "1/2/3",
		":", `\`, "^", "^:a", "[1)", strings.Repeat("[", 300) + strings.Repeat("]", 300), strings.Repeat("x", maxEDNToken+1),
		`"` + strings.Repeat("x", maxEDNToken+1) + `"`, "\x00", "\xff",
	} {
		_, err := readEDN(text)
		require.Error(t, err, text[:min(len(text), 40)])
	}
}

// FuzzEDN checks that whatever is read can be written and read again, to the same text.
func FuzzEDN(f *testing.F) {
	for _, seed := range []string{
		`{:type :ok, :f :txn, :process 0, :value [[:send 1 [7 "a"]] [:poll {2 [[0 nil]]}]]}`, `#tag [1 #_2 \a 3.5]`, "#{1 1/2} ; c",
		`#jepsen.history.Op{:index 0}`, `^{:a 1} x ##NaN`, `"\u00e9\n"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once, err := readEDN(text)
		if err != nil || strings.Contains(text, `\`) || strings.ContainsRune(text, '"') {
			return // Go writes some characters of strings as escapes that EDN does not have
		}
		twice, err := readEDN(strings.Join(once, " "))
		require.NoError(t, err)
		require.Equal(t, once, twice)
	})
}

// FuzzHistory checks that no file makes the checker fail in another way than by an error.
func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{:type :ok, :f :txn, :process 0, :value [[:send 1 [7 "a"]] [:poll {2 [[0 nil]]}]]}`))
	f.Add([]byte(`[{"type":"ok","f":"poll","process":1,"value":[["poll",{"1":[[7,"a"],[3,"b"]]}]]}]`))
	f.Add([]byte(`{:type :info :f :assign :process 1 :value [1]} {:type :fail :f :send :process 1 :value [[:send 1 2]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := folder(t, map[string]string{"h": string(text)})
		r, err := CheckHistory(background, HistoryOptions{Path: dir + "/h"})
		if err != nil {
			require.ErrorIs(t, err, ErrUnusable)
			return
		}
		require.Len(t, r.Violations, len(Anomalies()))
	})
}
