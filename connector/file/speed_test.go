package file

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sizeOfSpeed names the size of the benchmark's file in MiB; without it the file has 32.
const sizeOfSpeed = "UNDERSTUDY_FILE_MIB"

// speedFile writes JSON lines of 60 to 260 bytes.
func speedFile(b *testing.B) (name string, size int64) {
	mib := int64(32)
	if text := os.Getenv(sizeOfSpeed); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		require.NoError(b, err)
		mib = n
	}
	name = filepath.Join(b.TempDir(), "speed.jsonl")
	f, err := os.Create(name)
	require.NoError(b, err)
	w := bufio.NewWriterSize(f, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	pad := make([]byte, 200)
	for i := range pad {
		pad[i] = 'a' + byte(i%26)
	}
	for n := 0; size < mib<<20; n++ {
		written, err := fmt.Fprintf(w, `{"id":%d,"user":"u%d","price":%d.%02d,"note":"%s"}`+"\n", n, r.IntN(1e5), r.IntN(1e4), r.IntN(100),
			pad[:r.IntN(len(pad))])
		require.NoError(b, err)
		size += int64(written)
	}
	require.NoError(b, w.Flush())
	require.NoError(b, f.Close())
	return name, size
}

// readSource reads every split of the source and gives the number of lines and of their bytes.
func readSource(b *testing.B, s *Source) (lines, size int64) {
	splits, err := s.Splits(context.Background())
	require.NoError(b, err)
	for _, split := range splits {
		r, err := s.Open(context.Background(), split, 0)
		require.NoError(b, err)
		for {
			l, _, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			lines++
			size += int64(len(l.Text))
		}
		require.NoError(b, r.Close())
	}
	return lines, size
}

// readScanner does the same by a bufio.Scanner.
func readScanner(b *testing.B, name string, buffer int, text bool) (lines, size int64) {
	f, err := os.Open(name)
	require.NoError(b, err)
	s := bufio.NewScanner(f)
	if buffer > 0 {
		s.Buffer(make([]byte, buffer), 16<<20)
	}
	for s.Scan() {
		lines++
		if text {
			size += int64(len(s.Text()))
		} else {
			size += int64(len(s.Bytes()))
		}
	}
	require.NoError(b, s.Err())
	require.NoError(b, f.Close())
	return lines, size
}

// BenchmarkSpeed reads one file by the source and by a bufio.Scanner, in turns: a plain one, one with the buffer of the
// source, and one that makes a string of each line, as the source does. A ratio is that of the speeds: above 1 the source is the
// faster one. It is that of the fastest turns, since whatever else runs on the machine only slows down.
func BenchmarkSpeed(b *testing.B) {
	name, size := speedFile(b)
	s := Lines(name)
	readers := []struct {
		name string
		read func() (int64, int64)
		best time.Duration
	}{
		{name: "source", read: func() (int64, int64) { return readSource(b, s) }},
		{name: "scanner", read: func() (int64, int64) { return readScanner(b, name, 0, false) }},
		{name: "scanner-256KiB", read: func() (int64, int64) { return readScanner(b, name, 256<<10, false) }},
		{name: "scanner-text", read: func() (int64, int64) { return readScanner(b, name, 0, true) }},
	}
	var first [2]int64
	for b.Loop() {
		for i := range readers {
			r := &readers[i]
			begin := time.Now()
			lines, n := r.read()
			took := time.Since(begin)
			if r.best == 0 || took < r.best {
				r.best = took
			}
			if first[0] == 0 {
				first = [2]int64{lines, n}
			}
			require.Equal(b, first, [2]int64{lines, n})
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, r := range readers {
		b.ReportMetric(float64(size)/r.best.Seconds()/1e6, r.name+"-MB/s")
		if r.name != "source" {
			b.ReportMetric(r.best.Seconds()/readers[0].best.Seconds(), r.name+"-ratio")
		}
	}
}

// BenchmarkCSV reads rows of five fields into a struct.
func BenchmarkCSV(b *testing.B) {
	type row struct {
		ID    int64   `csv:"id"`
		User  string  `csv:"user"`
		Price float64 `csv:"price"`
	}
	var lines strings.Builder
	lines.WriteString("id,user,price,a,b\n")
	const rows = 20_000
	for n := range rows {
		fmt.Fprintf(&lines, "%d,u%d,%d.25,some text,\"quoted, text\"\n", n, n%100, n)
	}
	text := lines.String()
	s := CSV[row](write(b, filepath.Join(b.TempDir(), "a.csv"), text))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		all, _ := drain(b, openOnly(b, s, 0))
		require.Len(b, all, rows)
	}
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
}
