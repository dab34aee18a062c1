package plain

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rowsOf runs a program and gives its rows, sorted, a line each.
func rowsOf(t *testing.T, query string, o Options) [][]byte {
	t.Helper()
	parts := make([][][]byte, o.Parallelism)
	o.Window = time.Hour
	o.Out = func(part int) func([]byte) {
		return func(row []byte) { parts[part] = append(parts[part], append(bytes.Clone(row), '\n')) }
	}
	require.NoError(t, Run(context.Background(), query, o))
	rows := slices.Concat(parts...)
	slices.SortFunc(rows, bytes.Compare)
	return rows
}

// The answers that SQLite found for the jobs are those of the programs too, where they are kept whole.
func TestAnswersAreThoseOfSQL(t *testing.T) {
	compared := 0
	for _, query := range Queries() {
		want, err := os.ReadFile(filepath.Join("..", "..", "..", "testdata", "nexmark", "answers", "10000x1", query+".txt"))
		require.NoError(t, err)
		if !bytes.HasPrefix(want, []byte("{")) || query == "q12" {
			continue // sums of many rows: internal/bench compares these with what the engine gives
		}
		compared++
		got := rowsOf(t, query, Options{Events: 100_000, Parallelism: 2})
		require.Equal(t, string(want), string(bytes.Join(got, nil)), query)
	}
	require.GreaterOrEqual(t, compared, 3)
}

// However many goroutines a program has, it gives the same rows, also in windows that some of them have nothing in.
func TestParallelismMakesNoDifference(t *testing.T) {
	for _, query := range Queries() {
		o := Options{Events: 60_030, EventRate: 1000, Parallelism: 1}
		want := rowsOf(t, query, o)
		require.NotEmpty(t, want, query)
		for _, o.Parallelism = range []int{2, 5} {
			got := rowsOf(t, query, o)
			if query == "q12" { // the hour may have ended between
				require.GreaterOrEqual(t, 2*len(want), len(got))
				continue
			}
			require.Equal(t, string(bytes.Join(want, nil)), string(bytes.Join(got, nil)), "%s, %d", query, o.Parallelism)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, query := range Queries() {
		err := Run(ctx, query, Options{Events: 1 << 40, Parallelism: 3, Window: time.Hour, Out: func(int) func([]byte) { return func([]byte) {} }})
		require.ErrorIs(t, err, context.Canceled, query)
	}
}

func TestUnusableOptions(t *testing.T) {
	out := func(int) func([]byte) { return func([]byte) {} }
	require.ErrorContains(t, Run(context.Background(), "q4", Options{Events: 1, Parallelism: 1, Out: out}), "q4")
	require.ErrorContains(t, Run(context.Background(), "q0", Options{Parallelism: 1, Out: out}), "one event")
	require.Error(t, Run(context.Background(), "q0", Options{Events: 1, Parallelism: 1, Out: out, EventRate: 1 << 40}))
	require.Error(t, Run(context.Background(), "q3", Options{Events: 1, Parallelism: 2, Out: out, EventRate: 1 << 40}))
}

// What JSON escapes is escaped.
func TestText(t *testing.T) {
	require.Equal(t, `{"a":"x\\y\"","b":12,"c":0.045`, string(row(nil).text("a", `x\y"`).number("b", 12).thousandths("c", 45)))
}
