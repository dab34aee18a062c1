package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/operator"
)

// TestPasswords takes the password from everywhere it may come from.
func TestPasswords(t *testing.T) {
	s := use(t)
	passfile := filepath.Join(t.TempDir(), "pgpass")
	escaped := strings.ReplaceAll(password, ":", `\:`)
	require.NoError(t, os.WriteFile(passfile, []byte("*:*:*:*:"+escaped+"\n"), 0o600))
	for name, access := range map[string]func(t *testing.T, a *Access){
		"file":       func(_ *testing.T, a *Access) { a.PasswordFile = s.passwordFile },
		"variable":   func(t *testing.T, a *Access) { a.PasswordEnv = "DB_SECRET"; t.Setenv("DB_SECRET", password) },
		"PGPASSWORD": func(t *testing.T, _ *Access) { t.Setenv("PGPASSWORD", password) },
		"PGPASSFILE": func(t *testing.T, _ *Access) { t.Setenv("PGPASSFILE", passfile) },
		"URL": func(_ *testing.T, a *Access) {
			a.URL = strings.Replace(a.URL, "postgres@", "postgres:s3cret%20word%2F%40%3A%25@", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := SourceOptions{Access: Access{URL: s.url()}, Query: "SELECT 1 AS id", Key: "id"}
			access(t, &o.Access)
			require.Len(t, splitsOf(t, Rows(o)), 1)
		})
	}
}

// TestPasswordsAreNotShown has things go wrong in every way that shows what was tried.
func TestPasswordsAreNotShown(t *testing.T) {
	s := use(t)
	dir := t.TempDir()
	wrong := filepath.Join(dir, "wrong")
	require.NoError(t, os.WriteFile(wrong, []byte("hunter2 /@"), 0o600))
	host := fmt.Sprintf("127.0.0.1:%d", s.port)
	t.Setenv("DB_SECRET", "hunter2 /@")
	for name, a := range map[string]Access{
		"refused by the server": {URL: s.url(), PasswordFile: wrong},
		"from the environment":  {URL: s.url(), PasswordEnv: "DB_SECRET"},
		"in the URL":            {URL: "postgres://postgres:hunter2%20%2F%40@" + host + "/postgres"},
		"no port":               {URL: "postgres://postgres:hunter2 /@" + host + "x/postgres"},
		"not escaped":           {URL: "postgres://postgres:hunter2/@" + host + "/postgres"},
		"bad escape":            {URL: "postgres://postgres:hunter2%@" + host + "/postgres"},
		"no such setting":       {URL: "postgres://postgres:hunter2@" + host + "/postgres?sslmode=never"},
		"words":                 {URL: "host=127.0.0.1 port=x password=hunter2"},
		"bad words":             {URL: "host=127.0.0.1 password='hunter2"},
	} {
		_, err := Rows(SourceOptions{Access: a, Query: "SELECT 1 AS id", Key: "id"}).Splits(ctx)
		require.Error(t, err, name)
		require.NotContains(t, fmt.Sprintf("%v %+v %q", err, err, err.Error()), "hunter2", name)
		require.ErrorIs(t, err, operator.ErrPermanent, name)
	}
	_, err := Rows(SourceOptions{Access: Access{URL: s.url(), PasswordFile: filepath.Join(dir, "none")}, Query: "SELECT 1 AS id", Key: "id"}).Splits(ctx)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Rows(SourceOptions{Access: Access{URL: s.url(), PasswordEnv: "NO_SUCH_VARIABLE"}, Query: "SELECT 1 AS id", Key: "id"}).Splits(ctx)
	require.ErrorContains(t, err, "NO_SUCH_VARIABLE")
	require.Equal(t, "a … b … c …", redact("a p /@ b p+%2F%40 c p%20%2F@", "p /@"))
	require.Equal(t, "a", redact("a", ""))
}

func TestURLs(t *testing.T) {
	sink, err := SinkFromURL("postgres://me@h:1/d?table=public.t&sslmode=disable&columns=a,b&patience=3s&task_column=t&row_column=r&synchronous_commit=remote_apply&password_env=X")
	require.NoError(t, err)
	require.Equal(t, "postgres://me@h:1/d?sslmode=disable", sink.URL)
	require.Equal(t, SinkOptions{Access: Access{URL: sink.URL, PasswordEnv: "X", ConnectTimeout: 5 * time.Second}, Table: "public.t",
		Columns: []string{"a", "b"}, TaskColumn: "t", RowColumn: "r", Patience: 3 * time.Second, SynchronousCommit: "remote_apply", call: callTimeout}, sink)
	source, err := SourceFromURL("postgresql://h/d?table=t&key=id&splits=3&page_rows=5&follow=true&trust-keys=1&poll=1ms&password-file=/x")
	require.NoError(t, err)
	require.Equal(t, SourceOptions{Access: Access{URL: "postgresql://h/d", PasswordFile: "/x", ConnectTimeout: 5 * time.Second}, Table: "t", Key: "id",
		Splits: 3, PageRows: 5, Follow: true, TrustKeys: true, Poll: time.Millisecond}, source)
	for _, bad := range []string{"", "http://h/d?table=t", "postgres://h/d", "postgres://h/d?table=t&table=u", "postgres://h/d?table=t&patience=3",
		"postgres://h/d?table=t&column=a&columns=b", "postgres://h/d?table=t&password_file=a&password-file=b", "postgres://h/d?table=%zz"} {
		_, err := SinkFromURL(bad)
		require.Error(t, err, bad)
	}
	for _, bad := range []string{"postgres://h/d?table=t", "postgres://h/d?key=id", "postgres://h/d?table=t&key=id&splits=none", "postgres://h/d?table=t&key=id&follow=maybe",
		"postgres://h/d?table=t&query=q&key=id"} {
		_, err := SourceFromURL(bad)
		require.Error(t, err, bad)
	}
	for _, secret := range []string{"postgres://me:hunter2@h/d?table=t", "postgres://h/d?table=t&password=hunter2"} {
		_, err := SinkFromURL(secret)
		require.ErrorIs(t, err, ErrSecretInURL)
		require.NotContains(t, err.Error(), "hunter2")
		_, err = SourceFromURL(secret)
		require.ErrorIs(t, err, ErrSecretInURL)
	}
}
