package causal

import (
	"errors"
	"fmt"
	"strings"

	"github.com/understudy-stream/understudy/determinant"
)

// ErrDivergence is what every *Divergence is.
var ErrDivergence = errors.New("causal: replay diverges from the log")

// Divergence says that a replayed task asked for another choice than its log has: its code is not deterministic.
type Divergence struct {
	Task     determinant.TaskID // filled in by the step loop
	Vertex   string             // filled in by the step loop
	Epoch    determinant.Epoch  // filled in by the step loop, or of the last mark that was replayed
	Step     uint64             // number of the step within what was replayed of its epoch; 0 is before the first step
	Offset   determinant.LogOffset
	Expected string   // what the log has
	Got      string   // what the task asked for
	Last     []string // what was replayed before, with offsets, the latest last
}

// Error names all of it, over several lines.
func (d *Divergence) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "causal: divergence in task %d", d.Task)
	if d.Vertex != "" {
		fmt.Fprintf(&b, " (%s)", d.Vertex)
	}
	fmt.Fprintf(&b, ", epoch %d, step %d, log offset %d: expected %s, got %s", d.Epoch, d.Step, d.Offset, d.Expected, d.Got)
	for _, line := range d.Last {
		b.WriteString("\n\tafter ")
		b.WriteString(line)
	}
	return b.String()
}

// Is makes errors.Is(err, ErrDivergence) true.
func (d *Divergence) Is(target error) bool { return target == ErrDivergence }
