package cluster

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheBuildIDIsTheGoCommands(t *testing.T) {
	path, err := os.Executable()
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), "go", "tool", "buildid", path).Output()
	require.NoError(t, err)
	id, err := hashOf(strings.NewReader(strings.TrimSpace(string(out))))
	require.NoError(t, err)
	require.Equal(t, id+"-"+runtime.GOARCH, BuildID())
}

func TestAFileWithoutBuildIDHasNone(t *testing.T) {
	require.Empty(t, goBuildID(strings.NewReader("#!/bin/sh\n")))
	path, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Empty(t, goBuildID(bytes.NewReader(program[:64])), "a file that is cut")
	damaged := bytes.ReplaceAll(program, []byte(noteSection), []byte(strings.Repeat("x", len(noteSection))))
	require.Empty(t, goBuildID(bytes.NewReader(damaged)))
	a, err := hashOf(bytes.NewReader(program))
	require.NoError(t, err)
	b, err := hashOf(bytes.NewReader(damaged))
	require.NoError(t, err)
	require.NotEqual(t, a, b)
}
