package transport

import (
	"encoding/binary"
	"fmt"
)

// MaxHello bounds the bytes of an encoded Hello.
const MaxHello = 64 << 10

// Hello is what a side says of itself in the handshake. It is authenticated, but not secret without TLS.
type Hello struct {
	Purpose  string // what the connection is for
	Cluster  string // name of the cluster
	From, To uint64 // who speaks and whom it means to speak with: ids of workers, or 0
	Instance string // names this start of the process
	Body     []byte // more, by purpose
}

func appendHello(dst []byte, h Hello) ([]byte, error) {
	at := len(dst)
	dst = appendBytes(dst, h.Purpose)
	dst = appendBytes(dst, h.Cluster)
	dst = binary.AppendUvarint(dst, h.From)
	dst = binary.AppendUvarint(dst, h.To)
	dst = appendBytes(dst, h.Instance)
	dst = appendBytes(dst, h.Body)
	if n := len(dst) - at; n > MaxHello {
		return nil, fmt.Errorf("%w: a hello of %d bytes, at most %d", ErrTooLong, n, MaxHello)
	}
	return dst, nil
}

// decodeHello reads a Hello from exactly its bytes. The result does not alias them.
func decodeHello(p []byte) (Hello, error) {
	if len(p) > MaxHello {
		return Hello{}, fmt.Errorf("%w: a hello of %d bytes, at most %d", ErrCorrupt, len(p), MaxHello)
	}
	d := decoder{p: p}
	h := Hello{Purpose: string(d.bytes()), Cluster: string(d.bytes()), From: d.uvarint(), To: d.uvarint(), Instance: string(d.bytes())}
	if body := d.bytes(); len(body) > 0 {
		h.Body = append([]byte(nil), body...)
	}
	if d.bad || len(d.p) > 0 {
		return Hello{}, fmt.Errorf("%w: hello", ErrCorrupt)
	}
	return h, nil
}
