package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
)

// builtCommand is the path of the command under test, built once.
var builtCommand string

func TestMain(m *testing.M) {
	if spec := os.Getenv(beServer); spec != "" {
		if err := serve(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code, err := testBinary(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func testBinary(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "understudy-command")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	builtCommand = filepath.Join(dir, "understudy")
	if out, err := exec.Command("go", "build", "-o", builtCommand, ".").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// patience bounds how long a test waits for something that must happen.
const patience = 3 * time.Minute

// process is a run of the command.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout bytes.Buffer // read it after the end
	stderr said
	done   chan struct{} // closed when it has ended
}

// said is output that may be read while it is written.
type said struct {
	mu struct {
		sync.Mutex
		text bytes.Buffer
	}
}

// Write implements io.Writer.
func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.text.String()
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(builtCommand, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended is asked of ProcessState
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // an error means that it has ended
		<-p.done
	})
	return p
}

// code waits for the end of the process and gives its exit code, -1 if a signal killed it.
func (p *process) code() int {
	p.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-p.done:
	case <-timeout.C:
		p.t.Fatalf("%v did not end\nstderr: %.4000s", p.cmd.Args, p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// summary waits for a successful end and reads what -o json printed.
func (p *process) summary() understudy.Summary {
	p.t.Helper()
	require.Zero(p.t, p.code(), "stderr: %s", &p.stderr)
	var s understudy.Summary
	require.NoError(p.t, json.Unmarshal(p.stdout.Bytes(), &s), "stdout: %s", &p.stdout)
	p.t.Logf("%d records in %.1f s, %d kills, %d tasks restarted, %d rollbacks, %d checkpoints, %d duplicates suppressed",
		s.RecordsIn, s.Seconds, s.Kills, s.TasksRestarted, s.Rollbacks, s.Checkpoints, s.DuplicatesDropped)
	return s
}

// until waits until the condition holds or the process has ended; it tells which.
func (p *process) until(cond func() bool) bool {
	p.t.Helper()
	tick, timeout := time.NewTicker(2*time.Millisecond), time.NewTimer(patience)
	defer tick.Stop()
	defer timeout.Stop()
	for {
		select {
		case <-tick.C:
			if cond() {
				return true
			}
		case <-p.done:
			return false
		case <-timeout.C:
			p.t.Fatalf("waited in vain for %v\nstderr: %.4000s", p.cmd.Args, p.stderr.String())
		}
	}
}

// verified runs a check and gives its exit code and its counts of violations.
func verified(t *testing.T, args ...string) (code int, counts map[string]int64) {
	t.Helper()
	p := start(t, append(append([]string{"verify"}, args...), "-o", "json")...)
	code = p.code()
	require.NotEqual(t, verifyUnusable, code, "stderr: %s", &p.stderr)
	var report struct {
		Violations map[string]struct{ Count int64 }
	}
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &report), "stdout: %s", &p.stdout)
	counts = map[string]int64{}
	for kind, v := range report.Violations {
		if v.Count > 0 {
			counts[kind] = v.Count
		}
	}
	return code, counts
}

func requireClean(t *testing.T, args ...string) {
	t.Helper()
	code, counts := verified(t, args...)
	require.Empty(t, counts, "verify %v", args)
	require.Zero(t, code)
}

// outputSize is how many bytes of output are visible.
func outputSize(dir string) int64 {
	parts, err := filepath.Glob(filepath.Join(dir, "part-*"))
	if err != nil {
		return 0
	}
	var sum int64
	for _, part := range parts {
		if info, err := os.Stat(part); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// texts is input of a test: files of words, most of them from a small vocabulary.
func texts(t *testing.T, files, linesPerFile int) (glob string) {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	common := rand.NewZipf(rng, 1.1, 4, 20000)
	for i := range files {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("text-%02d.txt", i)))
		require.NoError(t, err)
		w := bufio.NewWriter(f)
		for range linesPerFile {
			for range 1 + rng.IntN(12) {
				fmt.Fprintf(w, "Wort%d, ", common.Uint64())
			}
			fmt.Fprintln(w)
		}
		require.NoError(t, errors.Join(w.Flush(), f.Close()))
	}
	return filepath.Join(dir, "*.txt")
}

// goTree is Go's network library, each file some times over, joined to a few big files.
func goTree(t *testing.T, files, times int) (glob string) {
	t.Helper()
	var all bytes.Buffer
	root, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), "src", "net"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	require.NoError(t, err)
	dir := t.TempDir()
	for i := range files {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("net-%02d.txt", i)))
		require.NoError(t, err)
		for range times {
			_, err = f.Write(all.Bytes())
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
	}
	return filepath.Join(dir, "*.txt")
}

// countWords counts the words of files in the plainest way.
func countWords(t *testing.T, glob string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	eachLine(t, glob, func(line string) {
		for _, word := range strings.FieldsFunc(line, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
		}) {
			counts[strings.ToLower(word)]++
		}
	})
	return counts
}

// lastCounts reads the output of wordcount: the greatest count of each word.
func lastCounts(t *testing.T, dir string) map[string]int {
	t.Helper()
	last := map[string]int{}
	eachLine(t, filepath.Join(dir, "part-*.jsonl"), func(line string) {
		// Written out, since there are millions of lines: {"word":"w","count":1}
		word, count, ok := strings.Cut(strings.TrimPrefix(line, `{"word":"`), `","count":`)
		n, err := strconv.Atoi(strings.TrimSuffix(count, "}"))
		if !ok || err != nil {
			t.Fatalf("line %q", line)
		}
		last[word] = max(last[word], n)
	})
	return last
}

func eachLine(t *testing.T, glob string, f func(line string)) {
	t.Helper()
	files, err := filepath.Glob(glob)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		file, err := os.Open(name)
		require.NoError(t, err)
		r := bufio.NewReaderSize(file, 1<<20)
		for {
			line, err := r.ReadString('\n')
			if line = strings.TrimSuffix(line, "\n"); line != "" {
				f(line)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
		}
		require.NoError(t, file.Close())
	}
}
