// Package report draws what a benchmark measured: a page of HTML with plots in SVG, which needs nothing from elsewhere and runs no script.
//
// A [Page] has facts, figures and tables. [Ranges] and [Times] make figures of numbers; where everything stands in the picture is worked out
// here, and page.html only writes it down, by html/template, which escapes every text.
//
// # Place on a record's way
//
// None: it sees figures when everything is over.
//
// # Goroutines
//
// Everything is plain data; a page belongs to whoever makes it.
package report
