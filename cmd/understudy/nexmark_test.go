package main

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/internal/nexmark"
)

// allQueries makes TestNexmarkOnKilledWorkers run every query; `make nexmark` does.
var allQueries = flag.Bool("nexmark.all", false, "run every query on killed workers")

func TestNexmarkGenerate(t *testing.T) {
	generated := func(flags ...string) []byte {
		p := start(t, append([]string{"nexmark", "generate"}, flags...)...)
		require.Zero(t, p.code(), "stderr: %s", &p.stderr)
		return p.stdout.Bytes()
	}
	whole := generated("--events", "5000")
	sum := md5.Sum(whole)
	require.Equal(t, "4539f174393c45a09eccffb1e8b04b0d", hex.EncodeToString(sum[:]))
	require.Equal(t, string(whole), string(generated("--events", "4321"))+string(generated("--first", "4321", "--events", "679")))
	require.NotEqual(t, string(whole), string(generated("--events", "5000", "--group", "10")))
	require.NotEqual(t, string(whole), string(generated("--events", "5000", "--rate", "5000")))
	ids := generated("--events", "50", "--ids")
	require.Len(t, bytes.Split(bytes.TrimSpace(ids), []byte("\n")), 46)
	require.Contains(t, string(ids), `{"id":4}`)
}

// The answers are the same when processes are killed, and those of chance are given once.
func TestNexmarkOnKilledWorkers(t *testing.T) {
	for _, q := range nexmark.Queries() {
		switch {
		case !*allQueries && q.Name != "q5" && q.Name != "q9" && q.Name != "q12x":
			continue
		}
		t.Run(q.Name, func(t *testing.T) {
			dir := t.TempDir()
			quiet, killed := filepath.Join(dir, "quiet"), filepath.Join(dir, "killed")
			query := []string{"run", "nexmark-" + q.Name, "--events", "100000", "--parallelism", "2", "-o", "json"}
			chaos := []string{"--output", killed, "--workers", "3", "--checkpoint-interval", "200ms", "--rate", "50000"}
			chaos = append(chaos, "--chaos", "kill=400ms,limit=4,target=worker", "--seed", earlyKills)
			switch {
			case q.Updating:
				query = append(query, "--final")
			case q.Name == "q12":
				chaos = append(chaos, "--window", "200ms")
			case q.Asks:
				query[3] = "10000"
				chaos = append(chaos, "--rate", "5000", "--window", "100ms")
			}
			p := start(t, slices.Concat(query, chaos)...)
			sum := clusterSummary(t, p)
			require.Positive(t, sum.Kills)
			require.Zero(t, sum.Rollbacks)
			if q.Asks {
				ids := start(t, "nexmark", "generate", "--events", query[3], "--ids")
				require.Zero(t, ids.code())
				input := filepath.Join(dir, "ids.jsonl")
				require.NoError(t, os.WriteFile(input, ids.stdout.Bytes(), 0o600))
				requireClean(t, "draws", "--input", input, "--output", filepath.Join(killed, "part-*"))
				return
			}
			if q.Name == "q12" {
				requireBidsCounted(t, query[3], killed)
				return
			}
			p = start(t, slices.Concat(query, []string{"--output", quiet, "--rate", "0"})...)
			p.summary()
			requireClean(t, "equal", filepath.Join(quiet, "part-*"), filepath.Join(killed, "part-*"))
		})
	}
}

// requireBidsCounted adds up the windows of q12, which a clock has cut, and compares with the bids of the stream.
func requireBidsCounted(t *testing.T, events, out string) {
	t.Helper()
	p := start(t, "nexmark", "generate", "--events", events)
	require.Zero(t, p.code())
	bids := map[string]int{}
	for line := range strings.Lines(p.stdout.String()) {
		if fields := strings.Split(line, "\t"); fields[0] == "B" {
			bids[fields[2]]++
		}
	}
	parts, err := filepath.Glob(filepath.Join(out, "part-*"))
	require.NoError(t, err)
	counted, windows := map[string]int{}, map[string]bool{}
	for _, part := range parts {
		text, err := os.ReadFile(part)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			var row struct {
				Bidder, Starttime json.Number
				Count             int `json:"bid_count"`
			}
			require.NoError(t, json.Unmarshal([]byte(line), &row))
			window := row.Bidder.String() + " " + row.Starttime.String()
			require.False(t, windows[window], "there twice: %s", line)
			windows[window] = true
			counted[row.Bidder.String()] += row.Count
		}
	}
	require.Equal(t, bids, counted)
	require.Greater(t, len(windows), len(bids), "there is more than one window")
}
