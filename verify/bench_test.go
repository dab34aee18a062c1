package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkIDs checks JSONL records of about 75 bytes; a record is one line of input or output.
func BenchmarkIDs(b *testing.B) {
	const n = 200_000
	dir := b.TempDir()
	var in, out []byte
	for i := range n {
		in = fmt.Appendf(in, `{"id":"rec-%09d","key":"user-%d","amount":%d,"note":"some text here"}`+"\n", i, i%1000, i*7%1000)
		j := i * 7919 % n
		out = fmt.Appendf(out, `{"key":"user-%d","id":"rec-%09d","total":%d,"nested":{"a":[1,2,3]}}`+"\n", j%1000, j, j*7%1000)
	}
	require.NoError(b, os.WriteFile(filepath.Join(dir, "in.jsonl"), in, 0o600))
	require.NoError(b, os.WriteFile(filepath.Join(dir, "out.jsonl"), out, 0o600))
	for _, memory := range []int64{4 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("memory=%dMiB", memory>>20), func(b *testing.B) {
			for b.Loop() {
				r, err := CheckIDs(context.Background(), IDsOptions{
					Options: Options{Memory: memory, TempDir: dir},
					Input:   Selection{Paths: []string{filepath.Join(dir, "in.jsonl")}},
					Output:  Selection{Paths: []string{filepath.Join(dir, "out.jsonl")}},
				})
				require.NoError(b, err)
				require.True(b, r.Clean())
			}
			b.ReportMetric(float64(2*n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkSorter sorts records of 16 bytes of key and 8 of value, in memory and with runs on disk.
func BenchmarkSorter(b *testing.B) {
	const n = 500_000
	for _, memory := range []int64{1 << 20, 8 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("memory=%dMiB", memory>>20), func(b *testing.B) {
			key, value := make([]byte, 16), make([]byte, 8)
			dir := b.TempDir()
			for b.Loop() {
				s, err := NewSorter(SorterOptions{Memory: memory, TempDir: dir})
				require.NoError(b, err)
				for i := range uint64(n) {
					binary.BigEndian.PutUint64(key[8:], i*0x9e3779b97f4a7c15>>20)
					require.NoError(b, s.Add(key, value))
				}
				got := 0
				require.NoError(b, s.Merge(context.Background(), func(Record) error { got++; return nil }))
				require.Equal(b, n, got)
				require.NoError(b, s.Close())
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkFieldTree finds one field in a record of about 75 bytes.
func BenchmarkFieldTree(b *testing.B) {
	text := []byte(`{"key":"user-17","id":"rec-000000017","total":119,"nested":{"a":[1,2,3]}}`)
	t, out := newFieldTree([]string{"id"}), make([]value, 1)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := t.find(text, out); err != nil {
			b.Fatal(err)
		}
	}
}
