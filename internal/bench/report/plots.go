package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	plotWidth  = 860.0
	leftEdge   = 70.0
	rightEdge  = 20.0
	topEdge    = 10.0
	bottomEdge = 40.0
	timeHeight = 320.0
	perSeries  = 12.0 // pixels
	betweenRow = 14.0
	wantTicks  = 8
	smallDot   = 2.5
	bigDot     = 4.5
)

// Row is a line of Ranges: for each series, the values of all repeats and their median.
type Row struct {
	Name   string
	Series []Values
}

// Values are what was measured again and again.
type Values struct {
	All    []float64
	Median float64
}

// Ranges draws, for each row and series, all values as small dots on a line from the least to the greatest, and the median as a big one. A
// line is drawn through each of the marked values. Series without values are left out.
func Ranges(title, note, axis string, series []string, rows []Row, marked ...float64) Figure {
	f := Figure{Title: title, Note: note}
	for i, name := range series {
		f.Legend = append(f.Legend, Key{Name: name, Color: color(i)})
	}
	all := slices.Clone(marked)
	for _, r := range rows {
		for _, v := range r.Series {
			all = append(all, v.All...)
		}
	}
	rowHeight := perSeries*float64(len(series)) + betweenRow
	f.Width, f.Height = plotWidth, topEdge+rowHeight*float64(len(rows))+bottomEdge
	x := newScale(all, leftEdge, plotWidth-rightEdge)
	f.verticals(x, axis)
	for _, m := range marked {
		f.Lines = append(f.Lines, line{X1: x.at(m), X2: x.at(m), Y1: topEdge, Y2: f.Height - bottomEdge, Class: "mark"})
	}
	for i, r := range rows {
		top := topEdge + rowHeight*float64(i)
		f.Labels = append(f.Labels, label{X: leftEdge - 8, Y: pixel(top + rowHeight/2 + 4), Anchor: "end", Text: r.Name})
		f.Lines = append(f.Lines, line{X1: 0, X2: plotWidth, Y1: top, Y2: top, Class: "grid"})
		for j, v := range r.Series {
			if len(v.All) == 0 {
				continue
			}
			y := top + betweenRow/2 + perSeries*(float64(j)+0.5)
			f.Lines = append(f.Lines, line{X1: x.at(slices.Min(v.All)), X2: x.at(slices.Max(v.All)), Y1: y, Y2: y, Class: "range", Color: color(j)})
			for _, one := range v.All {
				f.Dots = append(f.Dots, dot{X: x.at(one), Y: y, R: smallDot, Class: "one", Color: color(j), About: number(one)})
			}
			about := fmt.Sprintf("%s, %s: median %s", r.Name, series[j], number(v.Median))
			f.Dots = append(f.Dots, dot{X: x.at(v.Median), Y: y, R: bigDot, Color: color(j), About: about})
		}
	}
	return f
}

// Curve is a line of Times: Y at each of X.
type Curve struct {
	Name string
	X, Y []float64
}

// Mark is a moment with a name.
type Mark struct {
	X    float64
	Name string
}

// Times draws curves over time, on a logarithmic scale. Values that are not above 0 are left out.
func Times(title, note, xAxis, yAxis string, curves []Curve, marks []Mark) Figure {
	f := Figure{Title: title, Note: note, drawing: drawing{Width: plotWidth, Height: timeHeight}}
	var xs, ys []float64
	for _, c := range curves {
		for i := range c.X {
			if c.Y[i] > 0 {
				xs, ys = append(xs, c.X[i]), append(ys, math.Log10(c.Y[i]))
			}
		}
	}
	x := newScale(xs, leftEdge, plotWidth-rightEdge)
	f.verticals(x, xAxis)
	y := newScale(ys, timeHeight-bottomEdge, topEdge)
	y.low, y.high = math.Floor(y.low), math.Ceil(max(y.high, y.low+1))
	for power := y.low; power <= y.high; power++ {
		at := y.at(power)
		f.Lines = append(f.Lines, line{X1: leftEdge, X2: plotWidth - rightEdge, Y1: at, Y2: at, Class: "grid"})
		f.Labels = append(f.Labels, label{X: leftEdge - 6, Y: at + 4, Anchor: "end", Text: number(math.Pow(10, power))})
	}
	f.Labels = append(f.Labels, label{X: 4, Y: topEdge + 12, Anchor: "start", Text: yAxis})
	for _, m := range marks {
		f.Lines = append(f.Lines, line{X1: x.at(m.X), X2: x.at(m.X), Y1: topEdge, Y2: timeHeight - bottomEdge, Class: "mark"})
		f.Labels = append(f.Labels, label{X: x.at(m.X) + 3, Y: topEdge + 10, Anchor: "start", Text: m.Name})
	}
	for i, c := range curves {
		f.Legend = append(f.Legend, Key{Name: c.Name, Color: color(i)})
		var points strings.Builder
		for j := range c.X {
			if c.Y[j] > 0 {
				fmt.Fprintf(&points, "%g,%g ", x.at(c.X[j]), y.at(math.Log10(c.Y[j])))
			}
		}
		f.Curves = append(f.Curves, curve{Points: points.String(), Color: color(i)})
	}
	return f
}

// verticals draws the horizontal axis.
func (f *Figure) verticals(x scale, axis string) {
	bottom := f.Height - bottomEdge
	for _, t := range x.ticks() {
		f.Lines = append(f.Lines, line{X1: x.at(t), X2: x.at(t), Y1: topEdge, Y2: bottom, Class: "grid"})
		f.Labels = append(f.Labels, label{X: x.at(t), Y: bottom + 16, Anchor: "middle", Text: number(t)})
	}
	f.Labels = append(f.Labels, label{X: (leftEdge + plotWidth - rightEdge) / 2, Y: bottom + 34, Anchor: "middle", Text: axis})
}

// scale maps values to pixels.
type scale struct {
	low, high float64 // low < high
	from, to  float64 // pixels
}

// newScale covers all values, with a little room.
func newScale(values []float64, from, to float64) scale {
	s := scale{low: 0, high: 1, from: from, to: to}
	if len(values) > 0 {
		s.low, s.high = slices.Min(values), slices.Max(values)
	}
	room := (s.high - s.low) * 0.03
	if room == 0 {
		room = max(math.Abs(s.high)*0.1, 1e-9)
	}
	s.low, s.high = s.low-room, s.high+room
	return s
}

func (s scale) at(v float64) float64 {
	return pixel(s.from + (v-s.low)/(s.high-s.low)*(s.to-s.from))
}

// pixel leaves a tenth, which nobody can see.
func pixel(v float64) float64 { return math.Round(v*10) / 10 }

// ticks are round values within the scale: 1, 2 or 5 times a power of ten apart.
func (s scale) ticks() []float64 {
	step := math.Pow(10, math.Floor(math.Log10((s.high-s.low)/wantTicks)))
	for _, factor := range []float64{2, 2.5, 2} {
		if (s.high-s.low)/step > wantTicks {
			step *= factor
		}
	}
	var all []float64
	for i := math.Ceil(s.low / step); i*step <= s.high; i++ {
		all = append(all, i*step+0) // + 0: Ceil gives -0 too
	}
	return all
}

// number writes a value with as many digits as one can read.
func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
