package nats

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/operator"
)

func TestSinkFromURL(t *testing.T) {
	o, err := SinkFromURL("nats://a:4222,b/ORDERS?subject=orders.out&replicas=3&create=false&token-file=/t&domain=hub&timeout=2s")
	require.NoError(t, err)
	require.Equal(t, SinkOptions{
		Connection: Connection{Servers: []string{"nats://a:4222", "nats://b"}, TokenFile: "/t", Domain: "hub", Timeout: 2 * time.Second},
		Stream:     "ORDERS", Subject: "orders.out", Replicas: 3, NoCreate: true,
	}, o)
	o, err = SinkFromURL("tls://a/S")
	require.NoError(t, err)
	require.Equal(t, SinkOptions{Connection: Connection{Servers: []string{"tls://a"}, Timeout: 5 * time.Second}, Stream: "S", Subject: "S", Replicas: 1}, o)
}

func TestSourceFromURL(t *testing.T) {
	o, err := SourceFromURL("nats://a/S-0,S-1?subject=x.*&subject=y&bounded=true&ranges=4&ahead=9&allow-removed=true&user=u&password-file=p")
	require.NoError(t, err)
	require.Equal(t, SourceOptions{
		Connection: Connection{Servers: []string{"nats://a"}, User: "u", PasswordFile: "p", Timeout: 5 * time.Second},
		Streams:    []string{"S-0", "S-1"}, Subjects: []string{"x.*", "y"}, Bounded: true, Ranges: 4, Ahead: 9, AllowRemoved: true,
	}, o)
}

// What a URL gets wrong is said without what it says: there may be a secret in it.
func TestURLsThatWillNotDo(t *testing.T) {
	for _, text := range []string{
		"http://a/S?token=hunter2", "nats://u:hunter2@a/S", "nats://hunter2@a/S", "nats://a/S?password=hunter2", "nats://a/S?token=hunter2",
		"nats:///S?x=hunter2", "nats://a,/S", "nats://a/?subject=hunter2", "nats://a/S?subject=hunter2.*", "nats://a/S?%zzhunter2",
		"nats://a/%zzhunter2", "nats://a/S?replicas=hunter2", "nats://a/S?replicas=0", "nats://a/S?replicas=7", "nats://a/S?create=hunter2",
		"nats://a/S?timeout=hunter2", "nats://a/S?hunter=2", "nats://a/S?subject=a&subject=b", "nats://a/S?creds=a&nkey=b", "nats://a/a.b",
		"nats://a/S?password-file=p", "nats://a/S?tls-cert=p",
	} {
		_, err := SinkFromURL(text)
		require.Error(t, err, text)
		if text != "nats://a/S?subject=hunter2.*" && text != "nats://a/?subject=hunter2" {
			require.NotContains(t, err.Error(), "hunter2")
		}
	}
	for _, text := range []string{"nats://a", "nats://a/S?ranges=2", "nats://a/S?bounded=1", "nats://a/S?subject=a..b", "nats://a/S,"} {
		_, err := SourceFromURL(text)
		require.Error(t, err, text)
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]SinkOptions{
		"no stream": {}, "stream": {Stream: "a b"}, "subject": {Stream: "a", Subject: "a..b"}, "pattern": {Stream: "a", Subject: "a.*"},
		"server":      {Stream: "a", Connection: Connection{Servers: []string{"ftp://x"}}},
		"credentials": {Stream: "a", Connection: Connection{Servers: []string{"nats://me:hunter2@x"}}},
		"timeout":     {Stream: "a", Connection: Connection{Timeout: -1}},
		"replicas":    {Stream: "a", Replicas: -1},
		"reserved":    {Stream: "a", Subject: "$JS.x"},
	} {
		o.Identity = "job"
		_, err := NewSink(o).Open(ctx, 0, 1)
		require.ErrorIs(t, err, operator.ErrPermanent, name)
		require.NotContains(t, err.Error(), "hunter2")
	}
	o := SourceOptions{Streams: []string{"a"}, Ahead: -1}
	_, err := Messages(o).Splits(ctx)
	require.Error(t, err)
}

// Secrets come from files or the environment, are read again at each connect, and are in nothing that is said.
func TestSecrets(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("wrong-hunter2\n"), 0o600))
	opts := serverOptions(t.TempDir(), server.RANDOM_PORT)
	opts.Authorization = "right-hunter2"
	s, err := server.NewServer(opts)
	require.NoError(t, err)
	s.Start()
	defer stopEmbedded(s)
	require.True(t, s.ReadyForConnections(10*time.Second))
	o := SinkOptions{Connection: Connection{Servers: []string{s.Addr().String()}, TokenFile: token}, Stream: "OUT", Identity: "job"}
	sink, err := NewSink(o).Open(ctx, 0, 1)
	require.NoError(t, err)
	defer sink.Close()
	fenced := make(chan error, 1)
	go func() {
		_, err := sink.Fence(ctx, operator.Fence{Incarnation: 1})
		fenced <- err
	}()
	require.Eventually(t, func() bool { return sink.(*store).Waiting() != "" }, 10*time.Second, time.Millisecond)
	require.Contains(t, sink.(*store).Waiting(), "uthorization")
	require.NotContains(t, sink.(*store).Waiting(), "hunter2")
	require.NoError(t, os.WriteFile(token, []byte("right-hunter2\n"), 0o600))
	require.NoError(t, <-fenced, "the file was not read again")

	o.Connection.TokenFile = ""
	t.Setenv(EnvToken, "right-hunter2")
	again, err := NewSink(o).Open(ctx, 0, 1)
	require.NoError(t, err)
	defer again.Close()
	_, err = again.Fence(ctx, operator.Fence{Incarnation: 2})
	require.NoError(t, err)

	o.Connection.TokenFile = filepath.Join(t.TempDir(), "absent")
	absent, err := NewSink(o).Open(ctx, 0, 1)
	require.NoError(t, err)
	defer absent.Close()
	_, err = absent.Fence(ctx, operator.Fence{Incarnation: 3})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorIs(t, err, operator.ErrPermanent)
}
