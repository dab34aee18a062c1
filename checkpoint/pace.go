package checkpoint

import "runtime"

// Work between two offers of the processor, a good deal less than a millisecond's, and a few milliseconds' when somebody waits for it. An entry is
// as much work as some hundred bytes, whatever its size.
const (
	paceBytes   = 256 << 10
	urgentBytes = 2 << 20
	entryBytes  = 512
)

// pace makes way for others during long work in the background: without it, records, and the replays of tasks that recover, would wait for a full time
// slice of some 10 ms, again and again, whenever a checkpoint is taken or state is read.
type pace struct {
	done   int
	urgent bool
}

// did notes that an entry was worked on, or a piece of a file, of so many bytes.
func (p *pace) did(bytes int) {
	most := paceBytes
	if p.urgent {
		most = urgentBytes
	}
	if p.done += bytes + entryBytes; p.done >= most {
		p.done = 0
		runtime.Gosched()
	}
}
