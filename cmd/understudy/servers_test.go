package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// beServer is the environment variable that makes the test binary a server: kind, directory and port, of which 0 is any.
const beServer = "UNDERSTUDY_TEST_SERVER"

// external is a server outside of the job, in processes of its own, with a directory and a port that it keeps over its lives.
type external interface {
	// sink is the URL of a sink there.
	sink(name string) string
	// start starts the server and returns when it answers.
	start()
	// kill ends all its processes by kill -9, as far as the server promises to survive that.
	kill()
}

// serverProcess is this test binary as a server of NATS or Kafka.
type serverProcess struct {
	t    testing.TB
	kind string
	dir  string
	port int
	cmd  *exec.Cmd
}

func newServerProcess(t testing.TB, kind string) *serverProcess {
	s := &serverProcess{t: t, kind: kind, dir: t.TempDir()}
	s.start()
	t.Cleanup(func() {
		if s.cmd != nil {
			s.kill()
		}
	})
	return s
}

func (s *serverProcess) sink(name string) string {
	if s.kind == "kafka" {
		return fmt.Sprintf("kafka://127.0.0.1:%d/%s?partitions=4", s.port, name)
	}
	return fmt.Sprintf("nats://127.0.0.1:%d/%s", s.port, name)
}

func (s *serverProcess) start() {
	exe, err := os.Executable()
	require.NoError(s.t, err)
	s.cmd = exec.Command(exe)
	s.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%s,%d", beServer, s.kind, s.dir, s.port))
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, s.cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(s.t, err, "the server of %s did not start", s.kind)
	_, err = fmt.Sscanf(line, "port %d", &s.port)
	require.NoError(s.t, err, line)
}

// kill is kill -9 for NATS. franz-go's broker has no transaction log as Kafka has: it writes the markers that end a transaction partition by
// partition, and what died between two of them it commits in one partition and aborts in the other. So it may finish the request that it is
// at; its connections break, and requests that were on their way have no answer.
func (s *serverProcess) kill() {
	end := os.Signal(syscall.SIGKILL)
	if s.kind == "kafka" {
		end = syscall.SIGTERM
	}
	require.NoError(s.t, s.cmd.Process.Signal(end))
	_ = s.cmd.Wait() // its error is that it was killed
	s.cmd = nil
}

// serve is the test binary as a server, until it is told to end.
func serve(spec string) error {
	var kind, dir string
	var port int
	if parts := strings.Split(spec, ","); len(parts) == 3 {
		var err error
		if port, err = strconv.Atoi(parts[2]); err != nil {
			return err
		}
		kind, dir = parts[0], parts[1]
	}
	var err error
	closeIt := func() {}
	switch kind {
	case "nats":
		port, err = serveNATS(dir, port)
	case "kafka":
		port, closeIt, err = serveKafka(dir, port)
	default:
		err = fmt.Errorf("%s=%q", beServer, spec)
	}
	if err != nil {
		return err
	}
	fmt.Println("port", port)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	closeIt()
	return nil
}

func serveNATS(dir string, port int) (int, error) {
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		return 0, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return 0, errors.New("NATS is not ready")
	}
	return s.Addr().(*net.TCPAddr).Port, nil
}

// serveKafka is franz-go's broker, which writes all it acknowledges to disk.
func serveKafka(dir string, port int) (at int, stop func(), err error) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.SyncWrites())
	if err != nil {
		return 0, nil, err
	}
	_, text, err := net.SplitHostPort(c.ListenAddrs()[0])
	if err != nil {
		return 0, nil, err
	}
	at, err = strconv.Atoi(text)
	return at, c.Close, err
}

// postgresProcess is a PostgreSQL of the tests' own.
type postgresProcess struct {
	t         testing.TB
	bin, dir  string
	port      int
	as        *syscall.SysProcAttr
	arguments []string
	cmd       *exec.Cmd // the server
	exited    chan struct{}
}

// newPostgres makes a server that runs. With arguments such as -c fsync=off.
func newPostgres(t testing.TB, arguments ...string) *postgresProcess {
	t.Helper()
	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	require.NoError(t, err)
	if program, err := exec.LookPath("initdb"); err == nil && len(programs) == 0 {
		programs = []string{program}
	}
	if len(programs) == 0 {
		if os.Getenv("UNDERSTUDY_NO_SKIP") != "" {
			t.Fatal("PostgreSQL is not installed")
		}
		t.Skip("PostgreSQL is not installed (apt-get install postgresql)")
	}
	dir, err := os.MkdirTemp("", "understudy-postgres-") // whose parents another user may enter
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	p := &postgresProcess{t: t, bin: filepath.Dir(programs[len(programs)-1]), dir: dir, as: &syscall.SysProcAttr{}, arguments: arguments}
	require.NoError(t, os.WriteFile(p.passwordFile(), []byte(secret+"\n"), 0o600))
	if os.Getuid() == 0 { // whom PostgreSQL refuses
		u, err := user.Lookup("postgres")
		require.NoError(t, err)
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		require.NoError(t, err)
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		require.NoError(t, err)
		p.as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		require.NoError(t, os.Chown(dir, int(uid), int(gid)))
		require.NoError(t, os.Chown(p.passwordFile(), int(uid), int(gid)))
	}
	out, err := p.program("initdb", "-D", "data", "-U", "postgres", "-A", "password", "--pwfile", p.passwordFile(), "--no-sync", "--encoding=UTF8").CombinedOutput()
	require.NoError(t, err, "%s", out)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.port = l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	p.start()
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
	})
	return p
}

func (p *postgresProcess) passwordFile() string { return filepath.Join(p.dir, "password") }

func (p *postgresProcess) program(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr, cmd.Env = p.dir, p.as, append(os.Environ(), "LC_ALL=C", "PGPASSWORD="+secret)
	return cmd
}

func (p *postgresProcess) url() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres", p.port)
}

func (p *postgresProcess) sink(name string) string {
	return p.url() + "?table=" + name + "&column=record&password_file=" + p.passwordFile()
}

// start starts the server. One that was killed may have processes that hold its memory for a moment: then it ends, and is started again.
func (p *postgresProcess) start() {
	deadline := time.Now().Add(patience)
	for !p.tryToStart(deadline) {
		require.True(p.t, time.Now().Before(deadline), "the server does not start")
	}
}

func (p *postgresProcess) tryToStart(deadline time.Time) bool {
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(p.t, err)
	defer log.Close() //nolint:errcheck // the server has its own
	p.cmd = p.program("postgres", append([]string{"-D", "data", "-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1", "-c",
		"unix_socket_directories="}, p.arguments...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	require.NoError(p.t, p.cmd.Start())
	cmd, exited := p.cmd, make(chan struct{})
	p.exited = exited
	go func() {
		_ = cmd.Wait() // killed or not, it is over
		close(exited)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		if p.program("pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(p.port)).Run() == nil {
			return true
		}
		select {
		case <-exited:
			return false
		case <-tick.C:
		}
	}
	return false
}

func (p *postgresProcess) kill() {
	children := childrenOf(p.t, p.cmd.Process.Pid)
	require.NoError(p.t, p.cmd.Process.Kill())
	for _, pid := range children {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			require.ErrorIs(p.t, err, syscall.ESRCH)
		}
	}
	<-p.exited
	p.cmd = nil
}

// childrenOf lists the processes that pid has started.
func childrenOf(t testing.TB, pid int) (children []int) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
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

// psql gives what PostgreSQL's own client prints.
func (p *postgresProcess) psql(sql string) []byte {
	out, err := p.program("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", p.url(), "-c", sql).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		p.t.Fatalf("psql: %v: %s", err, exit.Stderr)
	}
	require.NoError(p.t, err)
	return out
}
