package cluster

import (
	"context"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
)

// Job is a plan laid out as tasks and channels. It is the same in every process and never changes.
type Job struct {
	Plan     *operator.Plan
	Tasks    []TaskSpec
	Channels []ChannelSpec
	Topology *standby.Topology
	order    []determinant.TaskID // downstream first
}

// TaskSpec is one task of a job.
type TaskSpec struct {
	ID       determinant.TaskID
	Vertex   int
	Info     operator.TaskInfo
	Inputs   []task.Input
	Edges    [][]determinant.ChannelID
	External bool
	ExtID    determinant.ChannelID
	// Transactional: the external output is held back until its checkpoint is complete, and no determinants are kept there.
	Transactional bool // implies External
}

// ChannelSpec is one channel of a job. That of a sink ends outside: External.
type ChannelSpec struct {
	From, To determinant.TaskID
	External bool
	Input    int // index among the inputs of To
	Output   int // index among the outputs of From
}

// Layout lays a plan out as tasks and channels.
func Layout(p *operator.Plan) (*Job, error) {
	j := &Job{Plan: p}
	first := make([]determinant.TaskID, len(p.Vertices))
	for v, vertex := range p.Vertices {
		first[v] = determinant.TaskID(len(j.Tasks))
		for i := range vertex.Parallelism {
			info := operator.TaskInfo{Vertex: vertex.Name, Index: i, Parallelism: vertex.Parallelism}
			j.Tasks = append(j.Tasks, TaskSpec{ID: determinant.TaskID(len(j.Tasks)), Vertex: v, Info: info})
		}
	}
	for _, e := range p.Edges {
		if err := j.connect(e, first[e.From], first[e.To]); err != nil {
			return nil, err
		}
	}
	j.Topology = &standby.Topology{Tasks: len(j.Tasks), Down: make([][]determinant.TaskID, len(j.Tasks))}
	for _, c := range j.Channels {
		down := j.Topology.Down[c.From]
		if len(down) == 0 || down[len(down)-1] != c.To {
			j.Topology.Down[c.From] = append(down, c.To)
		}
	}
	for i := range j.Tasks {
		j.Topology.Vertices = append(j.Topology.Vertices, j.Tasks[i].Vertex)
		j.connectSink(&j.Tasks[i])
	}
	if err := j.Topology.Validate(); err != nil {
		return nil, err
	}
	j.order = j.Topology.Order()
	return j, nil
}

// connect makes the channels of one edge.
func (j *Job) connect(e operator.Edge, from, to determinant.TaskID) error {
	n, m := j.Plan.Vertices[e.From].Parallelism, j.Plan.Vertices[e.To].Parallelism
	if e.Partition == operator.Forward && n != m {
		return fmt.Errorf("cluster: forward edge from %q (%d tasks) to %q (%d tasks)",
			j.Plan.Vertices[e.From].Name, n, j.Plan.Vertices[e.To].Name, m)
	}
	for i := range n {
		var edge []determinant.ChannelID
		for k := range m {
			if e.Partition == operator.Forward && i != k {
				continue
			}
			edge = append(edge, j.addChannel(from+determinant.TaskID(i), to+determinant.TaskID(k), e.Input))
		}
		src := &j.Tasks[from+determinant.TaskID(i)]
		src.Edges = append(src.Edges, edge)
	}
	return nil
}

func (j *Job) addChannel(from, to determinant.TaskID, logical int) determinant.ChannelID {
	id := determinant.ChannelID(len(j.Channels))
	dst := &j.Tasks[to]
	j.Channels = append(j.Channels, ChannelSpec{From: from, To: to, Input: len(dst.Inputs), Output: j.outputs(from)})
	dst.Inputs = append(dst.Inputs, task.Input{Channel: id, Logical: logical})
	return id
}

// outputs counts the channels that task t has so far.
func (j *Job) outputs(t determinant.TaskID) int {
	n := 0
	for _, c := range j.Channels {
		if c.From == t {
			n++
		}
	}
	return n
}

// connectSink gives a task that ends in a sink its external channel, and tells the topology what is kept behind it.
func (j *Job) connectSink(t *TaskSpec) {
	v := &j.Plan.Vertices[t.Vertex]
	if v.External() {
		t.External, t.ExtID = true, determinant.ChannelID(len(j.Channels))
		j.Channels = append(j.Channels, ChannelSpec{From: t.ID, External: true, Output: j.outputs(t.ID)})
	}
	t.Transactional = v.Transactions != nil
	switch {
	case v.Sink != nil:
		j.Topology.Sinks = append(j.Topology.Sinks, t.ID)
	case len(t.Edges) == 0: // what a transactional sink has written since the checkpoint goes with the life that wrote it
		j.Topology.Open = append(j.Topology.Open, t.ID)
	}
}

// sources lists the tasks of source vertices.
func (j *Job) sources() []determinant.TaskID {
	var ids []determinant.TaskID
	for _, t := range j.Tasks {
		if j.Plan.Vertices[t.Vertex].Source != nil {
			ids = append(ids, t.ID)
		}
	}
	return ids
}

// share gives task t its share of its vertex's splits, with their numbers among all: every n-th of n tasks. A split stays with its
// task when others come behind it, so it is always read by one task only.
func (j *Job) share(t *TaskSpec, splits []string, take func(number int, identity string)) {
	for i := t.Info.Index; i < len(splits); i += t.Info.Parallelism {
		take(i, splits[i])
	}
}

// relevant lists the logs that any of the consumers may depend on within d hops, downstream tasks first.
func (j *Job) relevant(consumers []bool, d determinant.Depth) []determinant.TaskID {
	in := make([]bool, len(j.Tasks))
	for id, is := range consumers {
		if is {
			j.addUpstream(in, determinant.TaskID(id), d)
		}
	}
	return j.pick(in)
}

// addUpstream adds the tasks whose determinants reach t within d hops.
func (j *Job) addUpstream(in []bool, t determinant.TaskID, d determinant.Depth) {
	for _, up := range j.Topology.Upstream(t, d) {
		in[up] = true
	}
}

func (j *Job) pick(in []bool) []determinant.TaskID {
	var ids []determinant.TaskID
	for _, id := range j.order {
		if in[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// storeOrder lists the logs that the causal store of sink task t keeps: what lies within d hops of the store.
func (j *Job) storeOrder(t determinant.TaskID, d determinant.Depth) []determinant.TaskID {
	in := make([]bool, len(j.Tasks))
	in[t] = true
	switch {
	case d == determinant.Full:
		j.addUpstream(in, t, d)
	case d > 1:
		j.addUpstream(in, t, d-1)
	}
	return j.pick(in)
}

// openSink opens the causal store of task t.
func (j *Job) openSink(t determinant.TaskID) (operator.CausalStore, error) {
	spec := &j.Tasks[t]
	return j.Plan.Vertices[spec.Vertex].Sink(context.Background(), spec.Info.Index)
}

// openTransactions opens the transactional store of task t.
func (j *Job) openTransactions(t determinant.TaskID) (operator.TransactionalStore, error) {
	spec := &j.Tasks[t]
	return j.Plan.Vertices[spec.Vertex].Transactions(context.Background(), spec.Info.Index)
}
