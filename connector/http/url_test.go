package http

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFromURL(t *testing.T) {
	server, source, err := FromURL("https://10.0.0.1:8080,eu=b.example:81,[::1]:82/?dir=/d&token-env=T&tls-ca=ca&tls-cert=c&tls-key=k&max-unread=1GiB" +
		"&max-body=2MiB&ack-timeout=3s&settle=1m&wait=2s&max-keys=7&name=eu&listen=:81")
	require.NoError(t, err)
	nodes := []Node{{"10.0.0.1:8080", "https://10.0.0.1:8080"}, {"eu", "https://b.example:81"}, {"::1:82", "https://[::1]:82"}}
	require.Equal(t, ServerOptions{
		Nodes: nodes, Name: "eu", Dir: "/d", Listen: ":81", Access: Access{TokenEnv: "T", CA: "ca", Cert: "c", Key: "k"},
		MaxUnread: 1 << 30, MaxBody: 2 << 20, AckTimeout: 3 * time.Second, Settle: time.Minute, MaxKeys: 7,
	}, server)
	require.Equal(t, SourceOptions{Nodes: nodes, Access: Access{TokenEnv: "T", CA: "ca"}, Wait: 2 * time.Second}, source)
	server.EnsureDefaults()
	require.NoError(t, server.Validate())

	for _, text := range []string{
		"ftp://x:1", "http://", "http://user:s3cret@x:1", "http://x:1/path", "http://x:1,x:1", "http://x:1?what=1", "http://x:1?max-body=many",
		"http://x:1?wait=-1s", "http://x:1?dir=a&dir=b", "http://x:1?max-keys=0", "http://a b:1", "http://x:1?token-env=T&token-file=F",
		"http://x:1/#dir=a", "http://a/b=x:1", "http://x:1?retain-bytes=99999999999GiB", "://s3cret",
	} {
		_, _, err := FromURL(text)
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "s3cret")
	}
	_, _, err = FromURL("http://x:1?what=1&other=2&max-body=many")
	require.ErrorContains(t, err, "parameter what")
	require.ErrorContains(t, err, "parameter other")
	require.ErrorContains(t, err, "parameter max-body")
}

func TestWebhookFromURL(t *testing.T) {
	receiver, o, err := WebhookFromURL("https://example.com/hook?team=7&x#dir=/d&format=each&token-file=F&max-records=3&max-bytes=64KiB&timeout=1s" +
		"&retry-first=1ms&retry-max=2s&max-retry-after=1h&sync=true")
	require.NoError(t, err)
	require.Equal(t, "https://example.com/hook?team=7&x", receiver)
	require.Equal(t, WebhookOptions{
		Dir: "/d", Format: Each, Access: Access{TokenFile: "F"}, MaxRecords: 3, MaxBytes: 64 << 10, Timeout: time.Second,
		RetryFirst: time.Millisecond, RetryMax: 2 * time.Second, MaxRetryAfter: time.Hour, Sync: true,
	}, o)
	for _, text := range []string{
		"https://x", "ftp://x#dir=d", "https://user:s3cret@x#dir=d", "https://x#dir=d&format=some", "https://x#dir=d&sync=maybe",
		"https://x#dir=d&what=1", "https://x#dir=%zz", "https://x#dir=d&retry-first=1h",
	} {
		_, _, err := WebhookFromURL(text)
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "s3cret")
	}
}

func TestOptions(t *testing.T) {
	var o ServerOptions
	o.EnsureDefaults()
	again := o
	again.EnsureDefaults()
	require.Equal(t, o, again)
	require.Error(t, o.Validate(), "without servers")
	o.Nodes, o.Name = []Node{{"a", "http://x:1"}, {"b", "http://x:2"}}, "a"
	require.ErrorContains(t, o.Validate(), "directory")
	o.Dir = "d"
	require.NoError(t, o.Validate())
	for i, change := range []func(o *ServerOptions){
		func(o *ServerOptions) { o.Name = "c" },
		func(o *ServerOptions) { o.MaxBody = mostBody + 1 },
		func(o *ServerOptions) { o.MaxUnread = o.MaxBody - 1 },
		func(o *ServerOptions) { o.Settle = -1 },
		func(o *ServerOptions) { o.Access.Key = "k" },
		func(o *ServerOptions) { o.Nodes = []Node{{"a", "http://x:1/path"}} },
		func(o *ServerOptions) { o.Nodes = []Node{{"..", "http://x:1"}} },
		func(o *ServerOptions) { o.Nodes = []Node{{"a", "http://x:1"}, {"a", "http://x:2"}} },
	} {
		bad := o
		change(&bad)
		require.Error(t, bad.Validate(), "%d", i)
	}
}

// TestHomes spreads keys evenly, and moves few of them when a server is added.
func TestHomes(t *testing.T) {
	nodes := []Node{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}
	var of [4]int
	moved := 0
	for i := range 4000 {
		key := fmt.Sprint("key ", i)
		before, after := homeOf(nodes[:3], key), homeOf(nodes, key)
		of[after]++
		if before != after {
			require.Equal(t, 3, after)
			moved++
		}
	}
	for _, n := range of {
		require.InDelta(t, 1000, n, 150)
	}
	require.InDelta(t, 1000, moved, 150)
}
