package transport

// MaxHello bounds the bytes of an encoded Hello.
const MaxHello = 64 << 10

// Hello is what a side says of itself in the handshake. It is authenticated, and not secret without TLS.
type Hello struct {
	Purpose  string // what the connection is for
	Cluster  string // name of the cluster
	From, To uint64 // who speaks and whom it means to speak with; ids of workers, or 0
	Instance string // names this start of the process
	Body     []byte // more, by purpose
}
