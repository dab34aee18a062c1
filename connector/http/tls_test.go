package http

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// certificate makes a certificate for 127.0.0.1 that signs itself.
func certificate(t *testing.T) (cert, key string) {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	require.NoError(t, err)
	raw, err := x509.MarshalECPrivateKey(secret)
	require.NoError(t, err)
	write := func(name, kind string, data []byte) string {
		name = filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600))
		return name
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", raw)
}

// TestTLS has servers, their copies, readers and a client speak TLS.
func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	b := newBench(t, 2, func(o *ServerOptions) {
		o.Access = Access{CA: cert, Cert: cert, Key: key}
		for i := range o.Nodes {
			o.Nodes[i].URL = strings.Replace(o.Nodes[i].URL, "http:", "https:", 1)
		}
	})
	b.ready(0, 1)
	pool := x509.NewCertPool()
	data, err := os.ReadFile(cert)
	require.NoError(t, err)
	require.True(t, pool.AppendCertsFromPEM(data))
	b.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	key0 := b.homeKey(0, "tls")
	require.Equal(t, b.must(0, key0, "1").First, b.must(1, key0, "1").First, "forwarded")
	require.Equal(t, []string{"1"}, texts(b.read("a", 0, 1)))
	b.stop(0)
	require.Equal(t, []string{"1"}, texts(b.read("a", 0, 1)))
}
