package verify

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder makes files from their names and contents and returns their folder. A name that ends in .gz is packed.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		data := []byte(content)
		if strings.HasSuffix(name, ".gz") {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, err := z.Write(data)
			require.NoError(t, err)
			require.NoError(t, z.Close())
			data = b.Bytes()
		}
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
	return dir
}

// rows makes lines of its arguments.
func rows(texts ...string) string { return strings.Join(texts, "\n") + "\n" }

// found returns the violations of a report that occurred.
func found(r *Report) map[string]int64 {
	counts := map[string]int64{}
	for _, v := range r.Violations {
		if v.Count > 0 {
			counts[v.Kind] = v.Count
		}
	}
	return counts
}

// firsts returns the first offenders of a kind, as text, with the folder taken off their places.
func firsts(r *Report, kind, dir string) []string {
	var texts []string
	for _, v := range r.Violations {
		for _, o := range v.First {
			if v.Kind == kind {
				texts = append(texts, strings.ReplaceAll(o.String(), dir+string(filepath.Separator), ""))
			}
		}
	}
	return texts
}

var background = context.Background()

type counts = map[string]int64
