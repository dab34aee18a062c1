package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/internal/console"
	"github.com/understudy-stream/understudy/internal/mutation"
)

func TestKillsEnrich(t *testing.T) {
	for _, target := range []string{"task", "worker"} {
		t.Run(target, func(t *testing.T) {
			input, out := texts(t, 3, 2000), filepath.Join(t.TempDir(), "out")
			sum := run(t, "enrich", input, out, "--chaos", "kill=100ms,limit=30,target="+target, "--seed", earlyKills,
				"--checkpoint-interval", "200ms").summary()
			require.Positive(t, sum.Kills)
			require.Zero(t, sum.Rollbacks)
			requireClean(t, "draws", "--input", input, "--output", out)
			requireOrdered(t, out)
		})
	}
}

// requireOrdered checks the running number within each key, which no other check looks at.
func requireOrdered(t *testing.T, out string) {
	t.Helper()
	last := map[string]int64{}
	eachLine(t, filepath.Join(out, "part-*.jsonl"), func(line string) {
		var d draw
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		if d.Kind == "draw" {
			last[d.Key]++
			require.Equal(t, last[d.Key], d.Order, "key %s", d.Key)
		}
	})
	require.Len(t, last, enrichKeys)
}

// Without determinants a standby makes other choices than the task that died, and what is visible does not fit together. The
// consumers' cursors are left unchecked too: they would notice, and the job would go back to a checkpoint each time.
func TestEnrichWithoutDeterminants(t *testing.T) {
	input := texts(t, 3, 1500)
	for seed := range 10 {
		out := filepath.Join(t.TempDir(), "out")
		o := &runOptions{
			inputs: []string{input}, output: out, chaos: "kill=200ms,target=task", seed: uint64(seed + 1), format: "json", window: 200e6,
			coordinators: 1,
			engine:       console.Engine{Parallelism: 2, ModeName: "exactly-once", Interval: 200e6, Standbys: 1, DepthName: "full"},
		}
		ctx := mutation.NewContext(context.Background(), mutation.DeterminantsOff|mutation.CursorUnchecked)
		var stdout, stderr bytes.Buffer
		if err := o.run(ctx, "enrich", &stdout, &stderr); err != nil {
			t.Logf("the job stopped: %v", err) // the sink does not take what contradicts it
		}
		code, violations := verified(t, "draws", "--input", input, "--output", out)
		t.Logf("seed %d: violations: %v", seed+1, violations)
		// What only says that the job stopped early does not count.
		if violations["duplicate"]+violations["window-sum"]+violations["window-duplicate"]+violations["window-repeated"] > 0 {
			require.Equal(t, verifyViolated, code)
			return
		}
	}
	t.Fatal("no run without determinants shows that they are missing")
}

// Objects are known by their id, whatever JSON they write it in.
func TestEnrichIDs(t *testing.T) {
	dir := t.TempDir()
	input, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out")
	var lines strings.Builder
	for i := range 200 {
		if i%2 == 0 {
			fmt.Fprintf(&lines, `{"text":"x","id":%d}`+"\n\n", i)
		} else {
			fmt.Fprintf(&lines, `{"id":"<é\u0041&%d>"}`+"\n", i)
		}
	}
	require.NoError(t, os.WriteFile(input, []byte(lines.String()), 0o600))
	require.EqualValues(t, 200, run(t, "enrich", input, out).summary().RecordsIn)
	requireClean(t, "draws", "--input", input, "--output", out)
}

func TestIDOf(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "a.txt:7",
		"plain":                  "a.txt:7",
		`{"id":"x"}`:             "x",
		` {"n":1,"id":12} `:      "12",
		`{"id":true}`:            "true",
		`{"id":null}`:            "a.txt:7",
		`{"id":{"a":1}}`:         "a.txt:7",
		`{"id":"x"`:              "a.txt:7",
		`["id"]`:                 "a.txt:7",
		`{"id":"\u00e9\n"}`:      "é\n",
		`{"other":"x","ID":"y"}`: "a.txt:7",
	} {
		require.Equal(t, want, idOf(file.Line{File: "a.txt", Offset: 7, Text: text}), text)
	}
}

func TestServiceIsAskedAgain(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := asked.Add(1); n%3 == 1 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "about "+r.URL.Query().Get("id")+" "+r.URL.Query().Get("k"))
	}))
	defer server.Close()
	input, out := texts(t, 1, 20), filepath.Join(t.TempDir(), "out")
	run(t, "enrich", input, out, "--service", server.URL+"/q?k=v").summary()
	requireClean(t, "draws", "--input", input, "--output", out)
	eachLine(t, filepath.Join(out, "part-*.jsonl"), func(line string) {
		var d draw
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		if d.Kind == "draw" {
			require.Equal(t, "about "+d.ID+" v", d.Answer)
		}
	})
}

// A service that is not there stops the job with an error that says so, or sets the records aside.
func TestServiceUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	defer server.Close()
	dir := t.TempDir()
	input, out := texts(t, 1, 5), filepath.Join(dir, "out")
	p := run(t, "enrich", input, out, "--service", url)
	require.Equal(t, 1, p.code())
	require.Contains(t, p.stderr.String(), url)
	require.Contains(t, p.stderr.String(), "404")
	require.Contains(t, p.stderr.String(), `operator "draw"`)

	letters := filepath.Join(dir, "letters.jsonl")
	sum := run(t, "enrich", input, filepath.Join(dir, "out2"), "--service", url, "--dead-letters", letters).summary()
	require.Equal(t, 5, sum.SetAside)
	n := 0
	eachLine(t, letters, func(string) { n++ })
	require.Equal(t, 5, n)
}
