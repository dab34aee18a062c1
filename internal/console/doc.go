// Package console is what a person at a terminal sees and says of a cluster: flags, the commands that ask coordinators, tables,
// summaries, the line of progress, and what Ctrl-C means.
//
// It is shared by the command and by programs that embed the engine and call Main; so it uses the standard flag package, and
// nothing of it is a public promise. No record passes by here. Nothing here starts goroutines but [Interrupts].
package console
