package file

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSourceURL(t *testing.T) {
	for text, want := range map[string]SourceURL{
		"file:///in/*.jsonl":             {Glob: "/in/*.jsonl", Format: FormatJSONL},
		"file:in/**/*.csv.gz":            {Glob: "in/**/*.csv.gz", Format: FormatCSV},
		"file://localhost/a%3F.parquet":  {Glob: "/a?.parquet", Format: FormatParquet},
		"file:a%20b/[ab].txt":            {Glob: "a b/[ab].txt", Format: FormatLines},
		"file:in/x?format=csv&comma=;":   {Glob: "in/x", Format: FormatCSV, CSV: CSVOptions{Comma: ';'}},
		"file:x.csv?columns=a,b&comma=|": {Glob: "x.csv", Format: FormatCSV, CSV: CSVOptions{Comma: '|', Columns: []string{"a", "b"}}},
		"file:x?split-bytes=2MiB&max-line=5&buffer-bytes=1KiB": {Glob: "x", Format: FormatLines,
			Options: SourceOptions{SplitBytes: 2 << 20, MaxLine: 5, BufferBytes: 1 << 10}},
		"file:in/*.jsonl?watch=1s": {Glob: "in/*.jsonl", Format: FormatJSONL, Options: SourceOptions{Watch: time.Second}},
		"file:x.csv?lazy-quotes=true&trim-leading-space=1&comment=%23": {Glob: "x.csv", Format: FormatCSV,
			CSV: CSVOptions{Comment: '#', LazyQuotes: true, TrimLeadingSpace: true}},
	} {
		got, err := ParseSourceURL(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, say := range map[string]string{
		"http:///x": "file:///PATH", "file://host/x": "file:///PATH", "file:": "no path", "x": "file:///PATH", "file:x#y": "file:///PATH",
		"file:x?format=xml": `there is no "xml"`, "file:x?comma=;": "comma: there is no such parameter",
		"file:x?split-bytes=0": "0 is no size", "file:x?split-bytes=99999999999GiB": "is no size", "file:x?max-line=a": "max-line",
		"file:x.csv?comma=ab": "more than one character", "file:x?max-line=1&max-line=2": "twice", "file:x?format=": "no value",
		"file:x?watch=soon": "watch", "file:x?%zz": "invalid URL escape", "file:%zz": "invalid URL escape",
	} {
		_, err := ParseSourceURL(text)
		require.ErrorIs(t, err, ErrURL, text)
		require.ErrorContains(t, err, say, text)
	}
	_, err := ParseSourceURL(`file:x.csv?comma="`)
	require.ErrorContains(t, err, "comma")
}

func TestSinkURL(t *testing.T) {
	dir, o, err := ParseSinkURL("file:///out?roll-bytes=64MiB&roll-every=1h&key=country&sync=true&shared=true&identity=me&patience=3s")
	require.NoError(t, err)
	require.Equal(t, "/out", dir)
	key, err := o.Key([]byte(`{"country":"D\u0045"}`))
	require.NoError(t, err)
	require.Equal(t, "DE", key)
	o.Key = nil
	require.Equal(t, SinkOptions{Identity: "me", Sync: true, Shared: true, Patience: 3 * time.Second, RollBytes: 64 << 20, RollEvery: time.Hour}, o)
	for text, say := range map[string]string{
		"file:out?roll-size=1": "roll-size: there is no such parameter", "file:out?roll-every=x": "roll-every", "file:out?sync=maybe": "sync",
		"file:out?roll-every=1ms": "their names tell seconds", "kafka:x": "file:///PATH",
	} {
		_, _, err := ParseSinkURL(text)
		require.ErrorContains(t, err, say, text)
	}
}

func TestJSONField(t *testing.T) {
	for record, want := range map[string]string{`{"a":1.50}`: "1.50", `{"a":"x\ny"}`: "x\ny", `{"b":1}`: "", `{"a":null}`: "null", `{"a":{"b":[1]}}`: `{"b":[1]}`} {
		got, err := JSONField("a")([]byte(record))
		require.NoError(t, err)
		require.Equal(t, want, got, record)
	}
	_, err := JSONField("a")([]byte(`[1]`))
	require.ErrorContains(t, err, "no fields")
}

func TestFoldersOfKeys(t *testing.T) {
	for key, want := range map[string]string{"": "%", "DE": "DE", "..": "%2E.", "a/b": "a%2Fb", "country=D E": "country=D%20E", "%": "%25", "é": "%C3%A9"} {
		got, err := folderOf(key)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.True(t, isFolder(got))
	}
	_, err := folderOf(string(make([]byte, 100)))
	require.ErrorIs(t, err, ErrKey)
	for _, folder := range []string{".understudy", "a/b", "a b", "../x"} {
		require.False(t, isFolder(folder))
	}
}
