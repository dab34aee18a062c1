package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/understudy-stream/understudy/operator"
)

func TestURLs(t *testing.T) {
	topic, o, err := SinkFromURL("kafka://me@a:1,b:2/out?key=word&tls=true&mechanism=PLAIN&password-env=X&interval=3ms&partitions=4" +
		"&journal=j&journal-replicas=2&compression=zstd&max-message-bytes=5000&journal-timeout=2s&transaction-timeout=3m&patience=1s&client-id=c")
	require.NoError(t, err)
	require.Equal(t, "out", topic)
	m, err := o.Message([]byte(`{"word":"x"}`))
	require.NoError(t, err)
	require.Equal(t, "x", string(m.Key))
	o.Message = nil
	require.Equal(t, SinkOptions{
		Client:  ClientOptions{Brokers: []string{"a:1", "b:2"}, ClientID: "c", TLS: true, Mechanism: "PLAIN", User: "me", PasswordEnv: "X"},
		Journal: "j", JournalReplicas: 2, Partitions: 4, Compression: "zstd", MaxMessageBytes: 5000, Interval: 3 * time.Millisecond,
		JournalTimeout: 2 * time.Second, TransactionTimeout: 3 * time.Minute, Patience: time.Second,
	}, o)
	topics, so, err := SourceFromURL("kafka://a:1/x,y?start=2026-01-31T12:00:00Z&until=end&buffer-bytes=7")
	require.NoError(t, err)
	require.Equal(t, []string{"x", "y"}, topics)
	require.Equal(t, SourceOptions{Client: ClientOptions{Brokers: []string{"a:1"}}, Bounded: true, BufferBytes: 7,
		Since: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}, so)

	for _, bad := range []string{
		"kafka:/a/b", "kafka://", "kafka:///t", "kafka://a:1", "kafka://a:1/", "kafka://a:1/x,y", "kafka://a:1/x?what=swordfish",
		"kafka://me:swordfish@a:1/x", "kafka://me%3Aswordfish:@a:1/x", "kafka://a:1/x?interval=3", "kafka://a:1/x?partitions=x",
		"kafka://a:1/x?tls=maybe", "kafka://a:1/x?password=swordfish", "kafka://a:1/x?key=a&key=b", "kafka://a:1/x?mechanism=LOGIN",
		"kafka://me@a:1/x", "kafka://a:1/x?%zz=swordfish", "kafka://a:1/x?cert-file=x", "kafka://a:1/x?transaction-timeout=1ms",
		"kafka://me%zzswordfish@a:1/x",
	} {
		_, _, err := SinkFromURL(bad)
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "swordfish")
	}
	for _, bad := range []string{"kafka://a:1/x?start=soon", "kafka://a:1/x?until=3", "kafka://a:1/x?buffer-bytes=-1", "kafka://a:1/x?key=a"} {
		_, _, err := SourceFromURL(bad)
		require.Error(t, err, bad)
	}
}

// certificate makes files of a key and a certificate that signs itself, for 127.0.0.1.
func certificate(t *testing.T) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}

// TestSecrets writes and reads over TLS as a user with a password, and looks for the password in everything that is said.
func TestSecrets(t *testing.T) {
	cert, key := certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	const secret = "swordfish"
	s := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}), kfake.EnableSASL(), kfake.SeedTopics(1, "in", "out"),
		kfake.Superuser("SCRAM-SHA-512", "me", secret), kfake.Superuser("PLAIN", "plain", secret))
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
	t.Setenv("TEST_KAFKA_PASSWORD", secret)
	for _, user := range []ClientOptions{
		{Mechanism: ScramSHA512, User: "me", PasswordFile: file}, {Mechanism: Plain, User: "plain", PasswordEnv: "TEST_KAFKA_PASSWORD"},
	} {
		o := s.sink()
		user.Brokers, user.CAFile = s.addrs, cert
		o.Client, o.Journal = user, "journal-"+user.User
		require.NotContains(t, fmt.Sprintf("%+v %#v", o.Client, o.Client), secret)
		st := open(t, Sink("out", o))
		fence(t, st, 1)
		require.NoError(t, st.Write(ctx, 1, stream{}.write(0, 3)))
		splits, err := Records(SourceOptions{Client: user}, "out").Splits(ctx)
		require.NoError(t, err)
		require.Len(t, splits, 1)

		require.NoError(t, os.WriteFile(file, []byte(secret+" not"), 0o600))
		t.Setenv("TEST_KAFKA_PASSWORD", secret+" not")
		// franz-go's broker hangs up on a wrong password, which may pass; a real one says what is wrong, which does not.
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		said := make(chan error, 1000)
		_, err = Records(SourceOptions{Client: user, Waiting: func(_ string, err error) { said <- err }}, "out").Splits(short)
		cancel()
		require.Error(t, err)
		close(said)
		for why := range said {
			err = errors.Join(err, why)
		}
		require.NotContains(t, err.Error(), secret)
		require.NoError(t, os.WriteFile(file, []byte(secret), 0o600))
		t.Setenv("TEST_KAFKA_PASSWORD", secret)
	}
	o := s.sink()
	o.Client.CAFile, o.Client.Mechanism, o.Client.User, o.Client.PasswordFile = cert, Plain, "plain", file+".not"
	_, err = Sink("out", o).Open(ctx, 0, 1)
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, refusal := range []error{kerr.SaslAuthenticationFailed, kerr.TopicAuthorizationFailed, kerr.MessageTooLarge} {
		require.ErrorIs(t, judged(fmt.Errorf("x: %w", refusal)), operator.ErrPermanent)
	}
	require.NotErrorIs(t, judged(kerr.CoordinatorNotAvailable), operator.ErrPermanent)
}
