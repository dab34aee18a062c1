package postgres

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// noSkip is the environment variable that forbids leaving tests out.
const noSkip = "UNDERSTUDY_NO_SKIP"

const password = "s3cret word/@:%"

// server is a PostgreSQL server process of the tests' own: its own data directory, its own port, an unprivileged user.
type server struct {
	bin, dir     string
	port         int
	passwordFile string
	as           *syscall.Credential // who runs it, nil for the user of the test
	args         []string
	process      *exec.Cmd
	exited       chan struct{}
	log          *os.File
	admin        *pgx.Conn // of tests that ask much
}

// shared is the server that tests use together; TestMain ends it.
var shared *server

func TestMain(m *testing.M) {
	if child := os.Getenv(childVariable); child != "" {
		os.Exit(runChild(child))
	}
	flag.Parse()
	checks := "10" // a server is slow; -rapid.checks asks for more
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "rapid.checks" {
			checks = f.Value.String()
		}
	})
	if err := flag.Set("rapid.checks", checks); err != nil {
		panic(err)
	}
	code := m.Run()
	if shared != nil {
		shared.remove()
	}
	os.Exit(code)
}

// use gives the shared server, running. Without PostgreSQL on the machine the test is left out.
func use(t testing.TB) *server {
	t.Helper()
	if shared == nil {
		shared = newServer(t, "-c", "fsync=off") // what processes write survives kill -9 without
	}
	shared.start(t)
	return shared
}

// binaries finds the folder with PostgreSQL's programs.
func binaries() (string, bool) {
	folders, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is good
	slices.SortFunc(folders, func(a, b string) int { return version(b) - version(a) })
	folders = append(folders, filepath.SplitList(os.Getenv("PATH"))...)
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "initdb")); err == nil {
			return folder, true
		}
	}
	return "", false
}

// version is the number in a path such as /usr/lib/postgresql/15/bin, 0 if there is none.
func version(bin string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		return 0
	}
	return n
}

func newServer(t testing.TB, args ...string) *server {
	t.Helper()
	bin, ok := binaries()
	if !ok {
		if os.Getenv(noSkip) != "" {
			t.Fatalf("PostgreSQL is not installed, and %s forbids leaving its tests out", noSkip)
		}
		t.Skip("PostgreSQL is not installed: nothing that needs its server is tested (apt-get install postgresql)")
	}
	dir, err := os.MkdirTemp("", "understudy-postgres-")
	require.NoError(t, err)
	s := &server{bin: bin, dir: dir, passwordFile: filepath.Join(dir, "password"), args: args, as: unprivileged(t)}
	t.Cleanup(func() {
		if t.Failed() {
			tail, _ := os.ReadFile(filepath.Join(dir, "log")) // it is shown if it is there
			t.Logf("the server's log ends with:\n%s", tail[max(0, len(tail)-4000):])
		}
	})
	require.NoError(t, os.WriteFile(s.passwordFile, []byte(password+"\n"), 0o600))
	if s.as != nil {
		require.NoError(t, os.Chown(s.passwordFile, int(s.as.Uid), int(s.as.Gid)))
		require.NoError(t, os.Chown(dir, int(s.as.Uid), int(s.as.Gid)))
	}
	s.log, err = os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	init := s.command("initdb", "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "password", "--pwfile", s.passwordFile,
		"--no-sync", "--encoding=UTF8", "--locale=C")
	out, err := init.CombinedOutput()
	require.NoError(t, err, "%s", out)
	// With SCRAM the server would compute for ten milliseconds at each connection, of which tests open thousands.
	alter := s.command("postgres", "--single", "-D", filepath.Join(dir, "data"), "postgres")
	alter.Stdin = strings.NewReader("SET password_encryption = 'md5'\nALTER ROLE postgres PASSWORD '" + password + "'\n")
	out, err = alter.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "ERROR")
	return s
}

// unprivileged is the user that runs the server if the test runs as root, which PostgreSQL refuses.
func unprivileged(t testing.TB) *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		require.NoError(t, err)
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		require.NoError(t, err)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Fatal("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
	return nil
}

func (s *server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	c.Env = append(os.Environ(), "PGPASSWORD="+password, "LC_ALL=C")
	return c
}

// start starts the server unless it runs, and returns when it answers.
func (s *server) start(t testing.TB) {
	t.Helper()
	if s.process != nil {
		return
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		if s.port == 0 {
			s.port = freePort(t)
		}
		s.launch(t)
		if s.answers(t, deadline) {
			return
		}
		require.True(t, time.Now().Before(deadline), "the server does not start")
		s.process = nil // it has exited: former processes still hold its memory, or its port is taken
	}
}

func (s *server) launch(t testing.TB) {
	args := append([]string{"-D", filepath.Join(s.dir, "data"), "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "max_connections=500"}, s.args...)
	c := s.command("postgres", args...)
	c.Stdout, c.Stderr = s.log, s.log
	require.NoError(t, c.Start())
	exited := make(chan struct{})
	go func() {
		_ = c.Wait() // killed or not, it is over
		close(exited)
	}()
	s.process, s.exited = c, exited
}

// answers waits for the server to answer a query; false if it exits instead.
func (s *server) answers(t testing.TB, deadline time.Time) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		conn, err := pgx.ConnectConfig(ctx, s.config(t))
		if err == nil {
			require.NoError(t, conn.Close(ctx))
		}
		cancel()
		if err == nil {
			return true
		}
		select {
		case <-s.exited:
			return false
		case <-tick.C:
		}
	}
	return false
}

// kill ends all processes of the server by kill -9, wherever they are.
func (s *server) kill(t testing.TB) {
	t.Helper()
	for _, pid := range s.stop(t) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			require.ErrorIs(t, err, syscall.ESRCH)
		}
	}
	<-s.exited
	s.process = nil
}

// stop stops all processes of the server, and gives them. The first to stop is the one that starts the others.
func (s *server) stop(t testing.TB) []int {
	t.Helper()
	first := s.process.Process.Pid
	require.NoError(t, syscall.Kill(first, syscall.SIGSTOP))
	all := append([]int{first}, childrenOf(t, first)...)
	for _, pid := range all[1:] {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // some end by themselves
	}
	return all
}

// childrenOf lists the processes that pid has started.
func childrenOf(t testing.TB, pid int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	var children []int
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			require.NoError(t, err)
			children = append(children, child)
		}
	}
	return children
}

func (s *server) remove() {
	if s.process != nil {
		_ = s.process.Process.Signal(syscall.SIGQUIT) // at once
		<-s.exited
	}
	_ = os.RemoveAll(s.dir) // a temporary folder
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// url is the server's address without a password. To ask for TLS first would be a second connection each time.
func (s *server) url() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.port)
}

func (s *server) access() Access { return Access{URL: s.url(), PasswordFile: s.passwordFile} }

func (s *server) config(t testing.TB) *pgx.ConnConfig {
	config, err := pgx.ParseConfig(s.url())
	require.NoError(t, err)
	config.Password = password
	return config
}

// connect gives a connection of the test's own.
func (s *server) connect(t testing.TB) *pgx.Conn {
	conn, err := pgx.ConnectConfig(context.Background(), s.config(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server may be dead by then
	return conn
}

// exec runs SQL.
func (s *server) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := s.asked(t).Exec(context.Background(), sql, args...)
	require.NoError(t, err)
}

// rows gives what a query of one column of text gives.
func (s *server) rows(t testing.TB, sql string, args ...any) []string {
	t.Helper()
	rows, err := s.asked(t).Query(context.Background(), sql, args...)
	require.NoError(t, err)
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return texts
}

// asked gives the connection that tests share. It is opened again after the server was killed.
func (s *server) asked(t testing.TB) *pgx.Conn {
	t.Helper()
	if s.admin == nil || s.admin.IsClosed() || s.admin.Ping(context.Background()) != nil {
		conn, err := pgx.ConnectConfig(context.Background(), s.config(t))
		require.NoError(t, err)
		s.admin = conn
	}
	return s.admin
}

// psql gives what PostgreSQL's own client prints, one row per line.
func (s *server) psql(t testing.TB, sql string) []string {
	t.Helper()
	out, err := s.command("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", s.url(), "-c", sql).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("psql: %v: %s", err, exit.Stderr)
	}
	require.NoError(t, err)
	if len(out) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}
