package nats

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var ctx = context.Background()

var long = flag.Bool("nats.long", false, "more servers, more kills, more cuts")

// The test binary is also a server, and a job, when these are set: processes that can be killed.
const (
	envServe   = "NATS_TEST_SERVE"   // directory and port
	envProcess = "NATS_TEST_PROCESS" // job or writer, address of the server, and a state directory or an incarnation
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(envServe); spec != "" {
		serve(spec)
		return
	}
	if spec := os.Getenv(envProcess); spec != "" {
		if err := beProcess(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m,
		// The server in this process does not wait for all it has started when it is shut down.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*stream).internalLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushLoop"),
	)
}

func serverOptions(dir string, port int) *server.Options {
	return &server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true, DontListen: false,
		JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 1 << 30, Debug: false,
	}
}

// serve is the server as a process of its own, until it is killed.
func serve(spec string) {
	dir, port, _ := strings.Cut(spec, ",")
	n, err := strconv.Atoi(port)
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	s, err := server.NewServer(serverOptions(dir, n))
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		fmt.Println("failed: not ready")
		os.Exit(1)
	}
	fmt.Println("port", s.Addr().(*net.TCPAddr).Port)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}

// embedded is a server in this process.
func embedded(t testing.TB) *server.Server {
	s := startEmbedded(t, t.TempDir(), server.RANDOM_PORT)
	t.Cleanup(func() { stopEmbedded(s) })
	return s
}

func startEmbedded(t testing.TB, dir string, port int) *server.Server {
	// A server that deletes its last stream removes the folder of all streams a moment later if that is empty, also from under a stream
	// that is just made there (nats-server 2.15, stream.stop). Something of ours is in it, so it stays.
	require.NoError(t, os.MkdirAll(filepath.Join(dir, server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", "kept"), 0o750))
	s, err := server.NewServer(serverOptions(dir, port))
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(10*time.Second))
	return s
}

func stopEmbedded(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// process is a server in a process of its own, in a directory and on a port that it keeps over its lives.
type process struct {
	t    testing.TB
	dir  string
	port int
	cmd  *exec.Cmd
}

func newProcess(t testing.TB) *process {
	p := &process{t: t, dir: t.TempDir(), port: server.RANDOM_PORT}
	p.start()
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
	})
	return p
}

func (p *process) address() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// start starts it and returns when it answers.
func (p *process) start() {
	exe, err := os.Executable()
	require.NoError(p.t, err)
	p.cmd = exec.Command(exe)
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%d", envServe, filepath.Join(p.dir, "store"), p.port))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, p.cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(p.t, err)
	_, err = fmt.Sscanf(line, "port %d", &p.port)
	require.NoError(p.t, err, line)
}

// kill is kill -9.
func (p *process) kill() {
	require.NoError(p.t, p.cmd.Process.Kill())
	p.cmd.Wait() // its error is that it was killed
	p.cmd = nil
}

func (p *process) signal(s os.Signal) { require.NoError(p.t, p.cmd.Process.Signal(s)) }

// plain is a client that knows nothing of this package.
func plain(t testing.TB, address string) jetstream.JetStream {
	conn, err := client.Connect(address, client.MaxReconnects(-1), client.ReconnectWait(20*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	return js
}

// readAll gives what a plain reader sees of a subject now, from the first message on.
func readAll(t testing.TB, js jetstream.JetStream, stream, subject string) (all []jetstream.Msg) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
		return nil
	}
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{FilterSubject: subject, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.DeleteConsumer(ctx, c.CachedInfo().Name)) }()
	for left := c.CachedInfo().NumPending; left > 0; {
		batch, err := c.Fetch(int(min(left, 500)), jetstream.FetchMaxWait(5*time.Second))
		require.NoError(t, err)
		n := uint64(0)
		for m := range batch.Messages() {
			all = append(all, m)
			n++
		}
		require.NoError(t, batch.Error())
		require.NotZero(t, n, "%d messages did not come", left)
		left -= n
	}
	return all
}

func bodies(all []jetstream.Msg) []string {
	var s []string
	for _, m := range all {
		s = append(s, string(m.Data()))
	}
	return s
}
