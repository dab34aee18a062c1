package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var errTaken = errors.New("taken")

const lockEnv = "UNDERSTUDY_TEST_LOCK" // the directory that a child of the test locks

// A lock names the process that has it, also to one that asks again.
func TestLockNamesItsHolder(t *testing.T) {
	dir := t.TempDir()
	lock, err := LockDir(OSFS(), dir, "lock", errTaken)
	require.NoError(t, err)
	_, err = LockDir(OSFS(), dir, "lock", errTaken)
	require.ErrorIs(t, err, errTaken)
	require.EqualError(t, err, fmt.Sprintf("taken: %s is held by pid %d", dir, os.Getpid()))

	for range 2 {
		child := exec.Command(os.Args[0], "-test.run=^TestLockOfAnotherProcess$", "-test.v")
		child.Env = append(os.Environ(), lockEnv+"="+dir)
		said, err := child.CombinedOutput()
		require.NoError(t, err, "%s", said)
		require.Contains(t, string(said), fmt.Sprintf("is held by pid %d", os.Getpid()))
	}
	require.NoError(t, lock.Close())
	lock, err = LockDir(OSFS(), dir, "lock", errTaken)
	require.NoError(t, err)
	require.NoError(t, lock.Close())
}

// TestLockOfAnotherProcess is the child of TestLockNamesItsHolder.
func TestLockOfAnotherProcess(t *testing.T) {
	dir := os.Getenv(lockEnv)
	if dir == "" {
		t.Skip("for a child process")
	}
	_, err := LockDir(OSFS(), dir, "lock", errTaken)
	require.ErrorIs(t, err, errTaken)
	t.Log(err)
}

// Who has the lock of an older program, or of a disk that was full, is not known.
func TestLockOfANamelessHolder(t *testing.T) {
	dir := t.TempDir()
	lock, err := LockDir(OSFS(), dir, "lock", errTaken)
	require.NoError(t, err)
	for _, spoil := range []func(name string) error{
		os.Remove,
		func(name string) error { return os.WriteFile(name, nil, 0o600) },
	} {
		require.NoError(t, spoil(filepath.Join(dir, "lock"+holderSuffix)))
		_, err = LockDir(OSFS(), dir, "lock", errTaken)
		require.EqualError(t, err, fmt.Sprintf("taken: %s is held by a process that has not said its name", dir))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lock"+holderSuffix), []byte(strings.Repeat("x", 10*maxHolder)), 0o600))
	_, err = LockDir(OSFS(), dir, "lock", errTaken)
	require.Less(t, len(err.Error()), len(dir)+2*maxHolder)
	require.NoError(t, lock.Close())
}

// A directory that cannot be written to is not one in use.
func TestLockWithoutADirectory(t *testing.T) {
	_, err := LockDir(OSFS(), filepath.Join(t.TempDir(), "none"), "lock", errTaken)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, errTaken)
}
