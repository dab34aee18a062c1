// Command window asks an HTTP service about each line of some files and counts, per second of processing time, how often it
// gave each answer:
//
//	go run ./examples/window 'orders/*.txt' totals http://localhost:8080/classify
//
// When a line is asked about, in which order answers come, what they say, and which second a line falls into: all of that is
// chance. Each is recorded before its effects can be seen, so that a standby repeats them instead of drawing again.
package main
