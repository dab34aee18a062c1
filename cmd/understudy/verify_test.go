package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// runVerify runs "verify" with arguments, in a folder with files, and returns its exit code.
func runVerify(t *testing.T, files map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	t.Chdir(dir)
	root := &cobra.Command{Use: "understudy", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(newVerifyCommand())
	var out, errOut bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(append([]string{"verify"}, args...))
	err := root.Execute()
	var exit *exitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		code = exit.code
		if exit.err != nil {
			errOut.WriteString(exit.err.Error())
		}
	default:
		t.Fatalf("error without exit code: %v", err)
	}
	return code, out.String(), errOut.String()
}

func TestVerifyExitCodes(t *testing.T) {
	files := map[string]string{
		"in.jsonl":  "{\"id\":1}\n{\"id\":2}\n",
		"ok.jsonl":  "{\"id\":2}\n{\"id\":1}\n",
		"bad.jsonl": "{\"id\":2}\n{\"id\":2}\n",
		"cut.jsonl": "{\"id\":2}\n{\"id\":\n",
		"in.txt":    "a b A\n",
		"wc.jsonl":  "{\"word\":\"a\",\"count\":1}\n{\"word\":\"b\",\"count\":1}\n{\"word\":\"a\",\"count\":2}\n",
		"wc.csv":    "k,v\na,0\na,5\nb,0\n",
		"lines.jsonl": `{"file":"in.txt","offset":0,"line":"a b A"}
`,
		"draws.jsonl": `{"kind":"draw","id":"1","key":"k","random":3}
{"kind":"draw","id":"2","key":"k","random":4}
{"kind":"window","key":"k","start":0,"count":2,"sum":7,"ids":["1","2"]}
`,
		"h.edn": "{:type :ok, :f :send, :process 0, :value [[:send 1 [0 1]]]}\n",
	}
	for _, c := range []struct {
		args string
		code int
		want string // in stdout or stderr
	}{
		{"ids --input in.jsonl --output ok.jsonl", 0, "verify ids: clean"},
		{"ids --input in.jsonl --output bad.jsonl", 1, "VIOLATED: 1 missing, 1 duplicate"},
		{"ids --input in.jsonl --output cut.jsonl", 2, "cut.jsonl:2: malformed JSON"},
		{"ids --input in.jsonl --output gone*", 2, `"gone*" matches no file`},
		{"ids --input in.jsonl", 2, "--output is required"},
		{"ids --input in.jsonl --output ok.jsonl bad.jsonl", 2, "a glob must be quoted"},
		{"ids --nonsense", 2, "unknown flag"},
		{"ids --input in.jsonl --output ok.jsonl --memory lots", 2, "is not a size"},
		{"ids --input in.jsonl --output ok.jsonl --memory 64KiB", 2, "below the least"},
		{"ids --input in.jsonl --output ok.jsonl --input-format xml", 2, "unknown format"},
		{"ids --input in.jsonl --output ok.jsonl --torn maybe", 2, "unknown treatment"},
		{"ids --input in.jsonl --output ok.jsonl -o yaml", 2, "unknown form of report"},
		{"ids --input in.txt --output lines.jsonl --id file,offset", 0, "clean"},
		{"ids --input in.txt --input-id @line --output lines.jsonl --id line", 0, "clean"},
		{"ids --input bad.jsonl --output bad.jsonl --multiset", 0, "clean"},
		{"running --output wc.jsonl", 0, "clean"},
		{"running --output wc.jsonl --words in.txt", 0, "clean"},
		{"running --output wc.jsonl --input-words h.edn", 1, "missing"},
		{"running --output wc.csv --key k --value v --start 0 --step 5", 0, "clean"},
		{"running --output wc.csv --key k --value v", 1, "off-scale"},
		{"running", 2, "--output is required"},
		{"equal in.jsonl ok.jsonl", 0, "clean"},
		{"equal in.jsonl bad.jsonl", 1, "1 only-in-a, 1 only-in-b"},
		{"equal --json in.jsonl ok.jsonl", 0, "clean"},
		{"equal --fields count --fields-b v wc.jsonl wc.csv", 1, "only-in-a"},
		{"equal --json --fields x in.jsonl ok.jsonl", 2, "exclude each other"},
		{"equal in.jsonl", 2, "accepts 2 arg(s)"},
		{"draws --input in.jsonl --output draws.jsonl", 0, "clean"},
		{"draws --input in.jsonl --output draws.jsonl --sum count", 1, "1 window-sum"},
		{"draws --input in.jsonl", 2, "--output is required"},
		{"history h.edn", 1, "VIOLATED: 1 unseen"},
		{"history h.edn --allow unseen", 0, "unseen                  1 (allowed)"},
		{"history in.jsonl", 2, "in.jsonl:"},
		{"", 0, "Exit codes"},
	} {
		t.Run(c.args, func(t *testing.T) {
			code, stdout, stderr := runVerify(t, files, strings.Fields(c.args)...)
			require.Contains(t, stdout+stderr, c.want)
			require.Equal(t, c.code, code, stderr)
			if c.code < 2 {
				require.Empty(t, stderr)
			}
		})
	}
}

func TestVerifyJSON(t *testing.T) {
	files := map[string]string{"a": "x\n", "b": "y\nx\n"}
	code, stdout, _ := runVerify(t, files, "equal", "a", "b", "-o", "json")
	require.Equal(t, 1, code)
	var got struct {
		Check      string
		Clean      bool
		Violations map[string]struct {
			Count int
			First []struct{ What, Where string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &got))
	require.Equal(t, "equal", got.Check)
	require.False(t, got.Clean)
	require.Equal(t, 1, got.Violations["only-in-b"].Count)
	require.Equal(t, "b:1", got.Violations["only-in-b"].First[0].Where)
}

// TestVerifyProgress reads enough for the hook to be called; how much it writes depends on the time that takes.
func TestVerifyProgress(t *testing.T) {
	files := map[string]string{"a": strings.Repeat("x\n", 200_000)}
	code, _, _ := runVerify(t, files, "equal", "a", "a", "--progress")
	require.Equal(t, 0, code)
	require.False(t, isTerminal(&bytes.Buffer{}))
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "7B": 7, "2K": 2048, "2KiB": 2048, "3M": 3 << 20, "256MiB": 256 << 20, "1 GiB": 1 << 30} {
		got, err := parseSize(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "MiB", "-1", "1.5G", "9999999999999GiB", "1TiB"} {
		_, err := parseSize(text)
		require.Error(t, err, text)
	}
}
