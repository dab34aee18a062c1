package report

import (
	_ "embed" // page.html
	"fmt"
	"html/template"
	"io"
)

// Page is a report.
type Page struct {
	Title   string
	Lead    []string // paragraphs
	Facts   []Fact
	Figures []Figure
	Tables  []Table
}

// Fact is a name and what is to be said about it.
type Fact struct{ Name, Value string }

// Table has a heading for each column. The first column is text, the others are numbers, aligned to the right.
type Table struct {
	Title string
	Heads []string
	Rows  [][]string
}

// Figure is a drawing with a title.
type Figure struct {
	Title, Note string
	Legend      []Key
	drawing
}

// Key says what a colour means.
type Key struct {
	Name  string
	Color string
}

// drawing is an SVG. Coordinates are pixels from the upper left.
type drawing struct {
	Width, Height float64
	Lines         []line
	Curves        []curve
	Dots          []dot
	Labels        []label
}

type line struct {
	X1, Y1, X2, Y2 float64
	Class, Color   string
}

// curve is a line through points, "x,y x,y".
type curve struct{ Points, Color string }

type dot struct {
	X, Y, R float64
	Class   string
	Color   string
	About   string // shown by whoever points at it
}

type label struct {
	X, Y   float64
	Anchor string // start, middle or end
	Text   string
}

// colours that people with any kind of sight can tell apart (Okabe and Ito).
var colors = []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999933"}

func color(i int) string { return colors[i%len(colors)] }

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// Write writes the page.
func (p *Page) Write(w io.Writer) error {
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
