package understudy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// example builds one of the examples and runs it in a directory.
func example(t *testing.T, name, dir string, args ...string) (output string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	built, err := exec.Command("go", "build", "-o", program, "./examples/"+name).CombinedOutput()
	require.NoError(t, err, "%s", built)
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	printed, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", printed)
	return string(printed)
}

func TestExampleWordcount(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "in.txt"), []byte("To be or\nnot to be\n"), 0o600))
	require.Contains(t, example(t, "wordcount", dir), "2 records in, 6 records out")
	require.ElementsMatch(t, []string{`{"to":1}`, `{"be":1}`, `{"or":1}`, `{"not":1}`, `{"to":2}`, `{"be":2}`},
		output(t, filepath.Join(dir, "counts")))

	text, err := os.ReadFile("examples/wordcount/main.go")
	require.NoError(t, err)
	require.Less(t, strings.Count(string(text), "\n"), 25)
}

func TestExampleWindow(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "class %d", len(r.URL.Query().Get("q"))%3)
	}))
	defer service.Close()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.txt"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(in, []byte(strings.Repeat("a\nbb\nccc\ndddd\n", 50)), 0o600))
	require.Contains(t, example(t, "window", dir, in, out, service.URL), "200 lines")
	counts := map[string]int{}
	for _, line := range output(t, out) {
		var total struct {
			Answer string
			Count  int
		}
		require.NoError(t, json.Unmarshal([]byte(line), &total))
		counts[total.Answer] += total.Count
	}
	require.Equal(t, map[string]int{"class 0": 50, "class 1": 100, "class 2": 50}, counts)
}

func TestExampleOwnSink(t *testing.T) {
	require.Equal(t, "200000 numbers, 200000 rows, 200000 different, true\n", example(t, "ownsink", t.TempDir()))
}

// output reads the lines in a directory of output.
func output(t *testing.T, dir string) (lines []string) {
	t.Helper()
	parts, err := filepath.Glob(filepath.Join(dir, "part-*"))
	require.NoError(t, err)
	for _, part := range parts {
		text, err := os.ReadFile(part)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}
