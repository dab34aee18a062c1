package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// childVariable lets the test binary be another process: a writer that writes until it is fenced. It has the options as a URL.
const childVariable = "POSTGRES_TEST_CHILD"

func runChild(text string) int {
	o, err := SinkFromURL(text)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	o.Identity = "job"
	incarnation, n := determinant.Incarnation(1), 0
	s, err := Sink(o).Open(ctx, 3, 4)
	if err == nil {
		_, err = s.Fence(ctx, operator.Fence{Incarnation: incarnation})
	}
	for err == nil {
		if err = s.Write(ctx, incarnation, stream{}.write(n, n+3)); err == nil {
			n += 3
		}
	}
	if !errors.Is(err, operator.ErrFenced) {
		fmt.Println(err)
		return 1
	}
	return 0
}

// TestZombieProcess stops a process in the middle of its writing, replaces it, and wakes it up.
func TestZombieProcess(t *testing.T) {
	for range 5 {
		p := newPlace(t)
		child := exec.Command(os.Args[0])
		url := fmt.Sprintf("%s&table=%s&password_file=%s", p.url(), p.table, p.passwordFile)
		child.Env = append(os.Environ(), childVariable+"="+url)
		var out strings.Builder
		child.Stdout, child.Stderr = &out, &out
		require.NoError(t, child.Start())
		t.Cleanup(func() { _ = child.Process.Kill() }) // it has ended, if all is well
		p.until(t, fmt.Sprintf(`SELECT coalesce((SELECT rows > 10 FROM %s__sink), false)`, p.table), "true")
		require.NoError(t, child.Process.Signal(syscall.SIGSTOP))

		s := openHere(t, p.options())
		stored := fence(t, s, 2)
		n := int(stored.Cursor.Next)
		require.GreaterOrEqual(t, n, 10)
		covers(t, stored.Deltas, 0, n)
		require.NoError(t, s.Write(ctx, 2, stream{}.write(n, n+2)))
		require.NoError(t, child.Process.Signal(syscall.SIGCONT))
		require.NoError(t, child.Wait(), "%s", &out)
		require.NoError(t, s.Write(ctx, 2, stream{}.write(n+2, n+4)))
		require.Equal(t, stream{}.rows(n+4), p.shownRows(t))
	}
}

// TestKilledProcess kills writers by kill -9 and goes on where they were.
func TestKilledProcess(t *testing.T) {
	for range 3 {
		p := newPlace(t)
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), fmt.Sprintf("%s=%s&table=%s&password_file=%s", childVariable, p.url(), p.table, p.passwordFile))
		require.NoError(t, child.Start())
		p.until(t, fmt.Sprintf(`SELECT coalesce((SELECT rows > 10 FROM %s__sink), false)`, p.table), "true")
		require.NoError(t, child.Process.Kill())
		require.Error(t, child.Wait())
		s := openHere(t, p.options())
		stored := fence(t, s, 2)
		n := int(stored.Cursor.Next)
		covers(t, stored.Deltas, 0, n)
		require.Equal(t, stream{}.rows(n), p.shownRows(t))
	}
}
