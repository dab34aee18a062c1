package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"
)

type sourceSplits = func(ctx context.Context) ([]string, error)

// vertexGraph is a vertex while the plan is made, and later what its instances are built from. It does not change then.
type vertexGraph struct {
	index       int
	nodes       []*node // head first
	parallelism int
	edges       map[int][]outEdge // of the last node, by port
}

// outEdge is one edge that leaves a vertex.
type outEdge struct {
	consumer  consumer
	partition Partition
	output    int // index among the vertex's outputs
}

// Plan compiles the job: it groups operators into vertices and checks that the graph is whole. Operators without a
// parallelism of their own get the given one. It may be called more than once.
func (j *Job) Plan(parallelism int) (*Plan, error) {
	if j.err != nil {
		return nil, j.err
	}
	if parallelism < 1 {
		return nil, fmt.Errorf("operator: job %q: parallelism %d: must be at least 1", j.name, parallelism)
	}
	if err := j.check(); err != nil {
		return nil, err
	}
	tasks := make([]int, len(j.nodes))
	for i, n := range j.nodes {
		if tasks[i] = n.parallelism; tasks[i] == 0 {
			tasks[i] = parallelism
		}
	}
	graphs, vertexOf := j.group(tasks)
	p := &Plan{Name: j.name}
	for _, g := range graphs {
		if err := p.connect(g, vertexOf, tasks); err != nil {
			return nil, err
		}
	}
	for _, g := range graphs {
		v, err := g.vertex()
		if err != nil {
			return nil, err
		}
		p.Vertices = append(p.Vertices, v)
	}
	p.Shape = p.shape(graphs)
	p.Hash = xxhash.Sum64String(p.Shape)
	return p, nil
}

// check finds what is wrong with the graph as a whole.
func (j *Job) check() error {
	if j.name == "" {
		return errors.New("operator: the job has no name")
	}
	sources := 0
	for _, n := range j.nodes {
		if n.source != nil {
			sources++
		}
		for _, c := range n.checks {
			if err := c(); err != nil {
				return fmt.Errorf("operator: %s %q: %w", n.kind, n.name, err)
			}
		}
		for i, p := range n.ports {
			if len(p.consumers) == 0 && !p.optional {
				return fmt.Errorf("operator: %s %q: output %d goes nowhere: end it with To or ForEach", n.kind, n.name, i)
			}
		}
	}
	if sources == 0 {
		return fmt.Errorf("operator: job %q has no source: begin it with From", j.name)
	}
	return nil
}

// group puts operators into vertices. Nodes are in topological order, since a stream exists before its consumer does; so the
// vertices are too.
func (j *Job) group(tasks []int) (graphs []*vertexGraph, vertexOf []int) {
	vertexOf = make([]int, len(j.nodes))
	for i, n := range j.nodes {
		if up := chained(n, tasks); up != nil {
			vertexOf[i] = vertexOf[up.index]
			g := graphs[vertexOf[i]]
			g.nodes = append(g.nodes, n)
			continue
		}
		vertexOf[i] = len(graphs)
		graphs = append(graphs, &vertexGraph{index: len(graphs), nodes: []*node{n}, parallelism: tasks[i]})
	}
	return graphs, vertexOf
}

// chained gives the operator that n shares a vertex with, directly before it, or nil if n is the head of its own.
func chained(n *node, tasks []int) *node {
	if n.head || len(n.inputs) != 1 {
		return nil
	}
	in := n.inputs[0]
	if in.partition != Forward || in.from.consumers() != 1 || tasks[in.from.index] != tasks[n.index] {
		return nil
	}
	return in.from
}

// connect adds the edges that leave g to the plan.
func (p *Plan) connect(g *vertexGraph, vertexOf, tasks []int) error {
	last := g.nodes[len(g.nodes)-1]
	g.edges = map[int][]outEdge{}
	outputs := 0
	for i := range last.ports {
		for _, c := range last.ports[i].consumers {
			in := c.node.inputs[c.input]
			if err := in.border(); err != nil {
				return fmt.Errorf("operator: %s %q: its output goes to another vertex, %q: %w", last.kind, last.name, c.node.name, err)
			}
			part := in.partition
			if part == Forward && tasks[c.node.index] != g.parallelism {
				part = Rebalance
			}
			g.edges[i] = append(g.edges[i], outEdge{consumer: c, partition: part, output: outputs})
			p.Edges = append(p.Edges, Edge{From: g.index, To: vertexOf[c.node.index], Input: c.input, Partition: part})
			outputs++
		}
	}
	return nil
}

func (g *vertexGraph) vertex() (Vertex, error) {
	v := Vertex{Index: g.index, Parallelism: g.parallelism, Source: g.nodes[0].source, InputOf: g.nodes[0].inputOf, Growing: g.nodes[0].growing}
	names := make([]string, len(g.nodes))
	for i, n := range g.nodes {
		names[i] = n.name
		if n.atLeastOnce {
			v.AtLeastOnce = append(v.AtLeastOnce, n.name)
		}
		if n.drift > 0 {
			if v.Source == nil {
				return v, fmt.Errorf("operator: %s %q: MaxDrift: its tasks read no source, so they cannot wait before they read on: give it the "+
					"parallelism of its source, and let no shuffle be between them", n.kind, n.name)
			}
			if v.MaxDrift == 0 || n.drift < v.MaxDrift {
				v.MaxDrift = n.drift
			}
		}
		g.sinkOf(n, &v)
	}
	v.Name = strings.Join(names, " -> ")
	v.New = func(rt Runtime) (Chain, error) { return newInstance(g, rt) }
	return v, nil
}

// sinkOf tells the vertex what n ends it in, if it does.
func (g *vertexGraph) sinkOf(n *node, v *Vertex) {
	var sink any
	if causal := n.sink; causal != nil {
		sink = causal
		v.Sink = func(ctx context.Context, task int) (CausalStore, error) { return causal.Open(ctx, task, g.parallelism) }
	}
	if held := n.transactional; held != nil {
		sink = held
		v.Transactions = func(ctx context.Context, task int) (TransactionalStore, error) {
			return held.OpenTransactions(ctx, task, g.parallelism)
		}
	}
	if s, ok := sink.(SinkIdentifier); ok {
		v.Identify = s.Identify
	}
}

// shape lists what a checkpoint depends on: operators and their kinds, parallelism, edges and partitions.
func (p *Plan) shape(graphs []*vertexGraph) string {
	var b strings.Builder
	fmt.Fprintf(&b, "job %q\n", p.Name)
	for _, g := range graphs {
		fmt.Fprintf(&b, "vertex %d x%d\n", g.index, g.parallelism)
		for _, n := range g.nodes {
			fmt.Fprintf(&b, "  %s%s %q\n", n.kind, n.detail, n.name)
		}
	}
	for _, e := range p.Edges {
		fmt.Fprintf(&b, "edge %d to %d input %d %s\n", e.From, e.To, e.Input, e.Partition)
	}
	return b.String()
}

// String gives the partition's name.
func (p Partition) String() string {
	switch p {
	case Forward:
		return "forward"
	case Hash:
		return "hash"
	case Rebalance:
		return "rebalance"
	case Broadcast:
		return "broadcast"
	}
	return fmt.Sprintf("partition(%d)", uint8(p))
}
