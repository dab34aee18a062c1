package operator

import "context"

// Partition says which channels of an edge a record goes to.
type Partition uint8

// The partitions. Forward edges join tasks of the same index and need equal parallelism on both ends.
const (
	Forward Partition = iota
	Hash
	Rebalance
	Broadcast
)

// Plan is a job's graph, compiled from its streams: vertices, which are chains of operators, and the edges between them.
// Vertices stand in topological order. It is the same in every process that builds the same job.
type Plan struct {
	Name     string
	Shape    string // the graph in words, a line for each part: operators, their names, how many tasks there are (x), partitions
	Hash     uint64 // of Shape; a checkpoint belongs to one hash
	Vertices []Vertex
	Edges    []Edge
}

// Vertex is one chain of operators, run by Parallelism tasks.
type Vertex struct {
	Index       int
	Name        string // the operators' names, joined by " -> "
	Parallelism int
	// Source lists the splits of a source vertex, nil for others.
	Source func(ctx context.Context) ([]string, error)
	// InputOf is InputNamer's method of the source; nil if it has none.
	InputOf func(split string) string
	// Growing is the source if it may get new splits while the job runs; nil for others.
	Growing Growing
	// MaxDrift is how far a source's tasks may be ahead of the least watermark that the job's sources make, in milliseconds of event time; 0:
	// any distance. See the option of that name.
	MaxDrift int64
	// Sink opens the causal store of one task of a vertex that ends in a causal sink; nil for others.
	Sink func(ctx context.Context, task int) (CausalStore, error)
	// Transactions opens those of one task of a vertex that ends in a transactional sink; nil for others.
	// Invariant: not both Sink and Transactions.
	Transactions func(ctx context.Context, task int) (TransactionalStore, error)
	// Identify tells the sink whose it is, before it is opened; nil if it does not ask.
	Identify func(job string) error
	// AtLeastOnce names the operators of the vertex whose effects may be seen twice after a failure.
	AtLeastOnce []string
	// New builds one task's instance.
	New func(rt Runtime) (Chain, error)
}

// External tells whether the vertex ends in a sink that has an external output.
func (v *Vertex) External() bool { return v.Sink != nil || v.Transactions != nil }

// Edge joins two vertices.
type Edge struct {
	From, To  int // indexes of vertices
	Input     int // logical input of To
	Partition Partition
}
