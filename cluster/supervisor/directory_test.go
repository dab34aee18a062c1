package supervisor

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func options(dir string, change func(*Options)) *Options {
	o := &Options{Job: "count", StateDir: dir}
	if change != nil {
		change(o)
	}
	if err := o.ensureDefaults(); err != nil {
		panic(err)
	}
	return o
}

// opened opens a directory and closes it again.
func opened(t *testing.T, o *Options) (*directory, error) {
	t.Helper()
	d, err := openDirectory(context.Background(), o)
	if err == nil {
		require.NoError(t, d.lock.Close())
	}
	return d, err
}

func TestDirectoryKeepsAddressesAndSecret(t *testing.T) {
	dir := t.TempDir()
	first, err := opened(t, options(dir, func(o *Options) { o.Coordinators = 3 }))
	require.NoError(t, err)
	require.Len(t, first.settings.Coordinators, 3)
	require.GreaterOrEqual(t, len(first.secret), MinSecret)
	info, err := os.Stat(filepath.Join(dir, secretName))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, first.formed())

	second, err := opened(t, options(dir, func(o *Options) { o.Coordinators = 3 }))
	require.NoError(t, err)
	require.Equal(t, first.settings, second.settings)
	require.Equal(t, first.secret, second.secret)
	require.NotContains(t, second.settings.SecretFile, string(second.secret))

	_, err = opened(t, options(dir, nil))
	require.ErrorIs(t, err, ErrOtherShape)
	require.ErrorContains(t, err, "began with 3 coordinators and cannot go on with 1")
	_, err = opened(t, options(dir, func(o *Options) { o.Job, o.Coordinators = "other", 3 }))
	require.ErrorContains(t, err, `of job "count"`)
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	d, err := openDirectory(context.Background(), options(dir, nil))
	require.NoError(t, err)
	_, err = openDirectory(context.Background(), options(dir, nil))
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, d.lock.Close())
}

func TestDirectoryOfALocalRun(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, localLedger), nil, 0o600))
	_, err := opened(t, options(dir, nil))
	require.ErrorIs(t, err, ErrOtherShape)
}

// Coordinators that have never run move if their addresses are taken, and what a start on the old ones left is gone.
func TestDirectoryMoves(t *testing.T) {
	dir := t.TempDir()
	first, err := opened(t, options(dir, nil))
	require.NoError(t, err)
	l, err := net.Listen("tcp", first.settings.Coordinators[0])
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // it only held the port
	require.NoError(t, os.MkdirAll(first.process(Coordinator, 0), 0o755))
	second, err := opened(t, options(dir, nil))
	require.NoError(t, err)
	require.NotEqual(t, first.settings.Coordinators, second.settings.Coordinators)
	require.NoDirExists(t, first.process(Coordinator, 0))

	require.NoError(t, l.Close())
	require.NoError(t, second.formed())
	l, err = net.Listen("tcp", second.settings.Coordinators[0])
	require.NoError(t, err)
	third, err := opened(t, options(dir, nil))
	require.NoError(t, err)
	require.Equal(t, second.settings.Coordinators, third.settings.Coordinators)
	_, err = Run(context.Background(), *options(dir, nil))
	require.ErrorContains(t, err, "must listen where it did when the job began")
	require.ErrorContains(t, err, "address already in use")
	require.NoError(t, l.Close())
}

func TestDirectoryWithACorruptFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, settingsName), []byte("{"), 0o600))
	_, err := opened(t, options(dir, nil))
	require.ErrorContains(t, err, settingsName)
	_, err = ReadSettings(t.TempDir())
	require.ErrorContains(t, err, "no cluster was started on")
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(file, []byte("  sixteen letters and more \n"), 0o600))
	c := Credentials{SecretFile: file}
	s, err := c.Security()
	require.NoError(t, err)
	require.Equal(t, "sixteen letters and more", string(s.Secret))
	for name, c := range map[string]Credentials{
		"too short":          {Secret: []byte("short")},
		"all three":          {CA: "ca.pem", Key: "key.pem"},
		"neither a secret":   {},
		"no such file":       {SecretFile: filepath.Join(dir, "none")},
		"reading the certif": {CA: "none.pem", Certificate: "none.pem", Key: "none.pem"},
	} {
		_, err := c.Security()
		require.ErrorContains(t, err, name)
	}
	for _, o := range []Options{
		{}, {StateDir: dir, Workers: -1}, {StateDir: dir, Coordinators: 2}, {StateDir: dir, Credentials: Credentials{Secret: []byte("x")}},
	} {
		require.Error(t, o.Validate(), "%+v", o)
	}
}
