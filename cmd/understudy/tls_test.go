package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority makes a certificate authority and, signed by it, a certificate for this machine, as files for --tls-ca, --tls-cert and
// --tls-key.
func authority(t *testing.T) (flags []string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	require.NoError(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return []string{
		"--tls-ca", write("ca.pem", "CERTIFICATE", caDER), "--tls-cert", write("cert.pem", "CERTIFICATE", leafDER),
		"--tls-key", write("key.pem", "PRIVATE KEY", keyDER),
	}
}

// With TLS all is as without it, and who has certificates of another authority is told so.
func TestClusterTLS(t *testing.T) {
	input, out := texts(t, 4, 20000), filepath.Join(t.TempDir(), "out")
	flags := authority(t)
	p := run(t, "wordcount", input, out, append([]string{"--workers", "2", "--rate", "200KiB", "--chaos", "kill=1s,target=worker,limit=2,seed=1"}, flags...)...)
	require.True(t, p.until(func() bool { return outputSize(out) > 0 }), "stderr: %s", &p.stderr)
	state := filepath.Join(out, ".understudy", "state")
	asked := start(t, "checkpoint", "--state", state)
	require.Zero(t, asked.code(), "stderr: %s", &asked.stderr)
	settings := settingsOf(t, state)
	args := []string{"status", "--cluster", settings.Cluster, "--coordinators", settings.Coordinators[0], "--secret-file", settings.SecretFile}
	stranger := start(t, append(args, authority(t)...)...)
	require.Equal(t, 1, stranger.code())
	require.Contains(t, stranger.stderr.String(), "no TLS connection can be made")
	plain := start(t, args...)
	require.Equal(t, 1, plain.code())
	require.Contains(t, plain.stderr.String(), "TLS")
	sum := clusterSummary(t, p)
	require.Equal(t, 2, sum.Kills)
	requireClean(t, "running", "--output", out, "--words", input)
}
