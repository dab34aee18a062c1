package report

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func written(t *testing.T, p *Page) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, p.Write(&b))
	return b.String()
}

func TestPage(t *testing.T) {
	p := &Page{
		Title: "A <report>", Lead: []string{"first & second"}, Facts: []Fact{{"CPU", "fast"}},
		Figures: []Figure{
			Ranges("ratios", "a note", "ratio", []string{"one", "two"}, []Row{{"q0", []Values{{All: []float64{0.9, 0.95, 1.1}, Median: 0.95}, {}}}}, 1),
			Times("latency", "", "s", "ms", []Curve{{"p50", []float64{0, 1, 2}, []float64{1, 0, 100}}}, []Mark{{1, "kill"}}),
		},
		Tables: []Table{{Title: "numbers", Heads: []string{"query", "n"}, Rows: [][]string{{"q0", "12"}}}},
	}
	text := written(t, p)
	for _, want := range []string{
		"A &lt;report&gt;", "first &amp; second", "<dd>fast</dd>", "a note", "q0, one: median 0.95", "<td>12</td>", "</html>", "kill", "<polyline points=",
	} {
		require.Contains(t, text, want)
	}
	require.Equal(t, 1, strings.Count(text, "0.95</title></circle>")-strings.Count(text, "median 0.95"), "a dot for the repeat")
	require.NotContains(t, text, "ZgotmplZ", "html/template found something unsafe")
	require.NotContains(t, text, "NaN")
}

// Nothing comes from elsewhere, and nothing runs.
func TestPageStandsAlone(t *testing.T) {
	text := written(t, &Page{Figures: []Figure{Times("t", "", "x", "y", nil, nil), Ranges("r", "", "x", nil, nil)}})
	for _, foreign := range []string{"<script", "src=", "href=", "url(", "@import"} {
		require.NotContains(t, text, foreign)
	}
	require.Equal(t, strings.Count(text, "http"), strings.Count(text, "http://www.w3.org/2000/svg"), "only the name of SVG")
}

func TestScale(t *testing.T) {
	s := newScale([]float64{0.5, 1.5}, 100, 300)
	require.Less(t, s.low, 0.5)
	require.Greater(t, s.high, 1.5)
	require.Equal(t, 200.0, s.at(1))
	ticks := s.ticks()
	require.Contains(t, ticks, 1.0)
	require.LessOrEqual(t, len(ticks), wantTicks+1)
	for _, values := range [][]float64{nil, {3}, {0}, {-2, 2}, {1e9, 1e9 + 1}, {1e-9, 2e-9}} {
		s := newScale(values, 0, 100)
		require.Less(t, s.low, s.high)
		require.NotEmpty(t, s.ticks())
		require.LessOrEqual(t, len(s.ticks()), wantTicks+1)
		for _, v := range s.ticks() {
			require.False(t, v == 0 && math.Signbit(v))
		}
	}
}

// What is higher is drawn higher, and later further to the right.
func TestTimes(t *testing.T) {
	f := Times("t", "", "s", "ms", []Curve{{"c", []float64{0, 1}, []float64{1, 1000}}}, nil)
	var x1, y1, x2, y2 float64
	points := strings.Fields(strings.ReplaceAll(f.Curves[0].Points, ",", " "))
	require.Len(t, points, 4)
	for i, p := range []*float64{&x1, &y1, &x2, &y2} {
		*p = number64(t, points[i])
	}
	require.Less(t, x1, x2)
	require.Greater(t, y1, y2)
	require.LessOrEqual(t, x2, f.Width)
	require.LessOrEqual(t, y1, f.Height)
}

func number64(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	return v
}
