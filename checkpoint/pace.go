package checkpoint

import "runtime"

// paceBytes is how many bytes are worked on between two offers of the processor, a good deal less than a millisecond's work.
const paceBytes = 256 << 10

// pace makes way for others during long work in the background: without it, records would wait for a full time slice of some 10 ms, again and
// again, whenever a checkpoint is taken.
type pace int

// did notes that so many bytes were worked on. A nil pace never makes way: somebody waits for the work.
func (p *pace) did(bytes int) {
	if p == nil {
		return
	}
	if *p += pace(bytes); *p >= paceBytes {
		*p = 0
		runtime.Gosched()
	}
}
